"""JSON shapes: what a client needs to hash a block and a transaction again is all there."""

from typing import Any

import msgspec

from flashblocks.execution.header import Header
from flashblocks.execution.rpc_shapes import block_json, block_receipts_json, header_json, transaction_json
from flashblocks.execution.transaction import decode_transaction, encode_deposit
from flashblocks.wire.hexadecimal import to_bytes, to_int

QUANTITIES = {
    "number": "number",
    "difficulty": "difficulty",
    "gasLimit": "gas_limit",
    "gasUsed": "gas_used",
    "timestamp": "timestamp",
    "baseFeePerGas": "base_fee_per_gas",
    "blobGasUsed": "blob_gas_used",
    "excessBlobGas": "excess_blob_gas",
}
DATA = {
    "parentHash": "parent_hash",
    "nonce": "nonce",
    "mixHash": "prev_randao",
    "sha3Uncles": "uncles_hash",
    "logsBloom": "logs_bloom",
    "transactionsRoot": "transactions_root",
    "stateRoot": "state_root",
    "receiptsRoot": "receipts_root",
    "miner": "fee_recipient",
    "extraData": "extra_data",
    "withdrawalsRoot": "withdrawals_root",
    "parentBeaconBlockRoot": "parent_beacon_root",
    "requestsHash": "requests_hash",
}


def test_a_header_can_be_hashed_again_from_its_json(forge: Any) -> None:
    sealed = forge.seal(forge.block.header, forge.state, [forge.transfer(0, 0)])
    shown = block_json(sealed.header, [decode_transaction(raw) for raw in sealed.transactions], full=False)
    fields: dict[str, Any] = {ours: to_int(shown[theirs]) for theirs, ours in QUANTITIES.items()}
    fields |= {ours: to_bytes(shown[theirs]) for theirs, ours in DATA.items()}
    assert Header(**fields).hash == sealed.header.hash == to_bytes(shown["hash"])


def test_before_isthmus_there_is_no_requests_hash(forge: Any) -> None:
    old = msgspec.structs.replace(forge.block.header, requests_hash=None)
    assert "requestsHash" not in header_json(old)


def test_a_pending_block_has_the_hash_it_is_given(forge: Any) -> None:
    sealed = forge.seal(forge.block.header, forge.state, [forge.transfer(0, 0)])
    decoded = [decode_transaction(raw) for raw in sealed.transactions]
    shown = block_json(sealed.header, decoded, sealed.receipts, full=True, block_hash=bytes(32))
    zero = "0x" + "00" * 32
    assert shown["hash"] == zero and {tx["blockHash"] for tx in shown["transactions"]} == {zero}
    receipts = block_receipts_json(sealed.header, decoded, sealed.receipts, block_hash=bytes(32))
    assert {receipt["blockHash"] for receipt in receipts} == {zero}


def test_a_deposit_shows_what_it_minted_only_when_it_did() -> None:
    def deposit(mint: int) -> Any:
        raw = encode_deposit(
            source_hash=b"\1" * 32, sender=b"\2" * 20, to=None, mint=mint, value=3, gas_limit=4, data=b"\5"
        )
        return transaction_json(decode_transaction(raw))

    assert deposit(7)["mint"] == "0x7" and "mint" not in deposit(0)
    assert deposit(7)["sourceHash"] == "0x" + "01" * 32 and deposit(7)["to"] is None
    assert deposit(0)["blockHash"] is None and "isSystemTx" not in deposit(0)


def test_a_waiting_transaction_shows_its_cap_and_an_included_one_what_it_paid(forge: Any) -> None:
    tx = decode_transaction(forge.transfer(0, 0, tip=5))
    assert to_int(transaction_json(tx)["gasPrice"]) == tx.max_fee_per_gas
    included = transaction_json(tx, block_hash=bytes(32), number=1, index=2, base_fee=100)
    assert (included["gasPrice"], included["transactionIndex"]) == (hex(105), "0x2")
