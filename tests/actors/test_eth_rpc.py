"""Ethereum JSON-RPC of an execution client, read with web3.py and by hand, over blocks with a real ERC-20."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from web3 import Web3

from actors.fallback_el import FallbackEl
from actors.rpc_client import RpcRefused
from chaos import erc20
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.assembler import assemble
from flashblocks.execution.header import Block, Header
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.signing import sign_transaction
from flashblocks.execution.transaction import LEGACY_TYPE, SET_CODE_TYPE, decode_transaction
from flashblocks.wire.hexadecimal import data, to_bytes
from tests.actors.execution_driver import Driver, running
from tests.execution.forge import Forge

FORGE = Forge()
ALICE, BOB = TEST_ACCOUNTS[0], TEST_ACCOUNTS[1]
TRANSFER_TOPIC = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef"


def signed(nonce: int, **fields: Any) -> bytes:
    return sign_transaction(
        ALICE.private_key, chain_id=901, nonce=nonce, max_fee_per_gas=10**10, max_priority_fee_per_gas=10**6, **fields
    )


@asynccontextmanager
async def with_token(tmp_path: Path) -> AsyncIterator[tuple[FallbackEl, Driver, str]]:
    """Block 1 deploys the token, block 2 moves 5 and 7 of it, block 3 is empty."""
    async with running(tmp_path, FORGE) as (component, driver):
        (deployed,) = await driver.send(signed(0, data=erc20.deployment_code(), gas_limit=erc20.DEPLOY_GAS))
        await driver.make_block()
        token = (await driver.rpc.call("eth_getTransactionReceipt", deployed))["contractAddress"]
        for nonce, amount in ((1, 5), (2, 7)):
            call = erc20.transfer_data(BOB.address, amount)
            await driver.send(signed(nonce, to=to_bytes(token), data=call, gas_limit=erc20.TRANSFER_GAS))
        await driver.make_block()
        await driver.make_block()
        yield component, driver, token


async def test_web3_reads_a_chain(tmp_path: Path) -> None:
    async with with_token(tmp_path) as (component, _, token):
        await asyncio.to_thread(read_with_web3, component.client.rpc_server.url, token)


def read_with_web3(url: str, token: str) -> None:
    w3 = Web3(Web3.HTTPProvider(url))
    assert (w3.eth.chain_id, w3.eth.block_number, w3.net.version) == (901, 3, "901")
    block = w3.eth.get_block(2, full_transactions=True)
    assert [tx["type"] for tx in block["transactions"]] == [0x7E, 2, 2]  # type: ignore[index]
    assert block["parentHash"] == w3.eth.get_block(1)["hash"]
    transfer = block["transactions"][1]
    receipt = w3.eth.get_transaction_receipt(transfer["hash"])  # type: ignore[index]
    assert receipt["status"] == 1 and receipt["logs"][0]["topics"][0].hex() == TRANSFER_TOPIC[2:]
    assert w3.eth.get_transaction(transfer["hash"])["from"] == Web3.to_checksum_address(ALICE.address)  # type: ignore[index]
    assert w3.eth.get_code(Web3.to_checksum_address(token)) == erc20.runtime_code()
    alice = Web3.to_checksum_address(ALICE.address)
    assert w3.eth.get_transaction_count(alice) == 3 and w3.eth.get_balance(alice) < 10**22
    answer = w3.eth.call({"to": Web3.to_checksum_address(token), "data": "0x" + erc20.balance_data(BOB.address).hex()})  # type: ignore[typeddict-item]
    assert int.from_bytes(answer, "big") == 12
    logs = w3.eth.get_logs({"fromBlock": 0, "toBlock": "latest", "address": Web3.to_checksum_address(token)})
    assert [int(log["data"].hex(), 16) for log in logs] == [5, 7] and [log["logIndex"] for log in logs] == [0, 1]
    assert w3.eth.gas_price > 0 and len(w3.eth.fee_history(3, "latest", [50])["reward"]) == 3
    gas = w3.eth.estimate_gas({"from": alice, "to": Web3.to_checksum_address(BOB.address), "value": 1})  # type: ignore[typeddict-item]
    assert gas == 21_000


async def test_blocks_by_every_name(tmp_path: Path) -> None:
    async with with_token(tmp_path) as (_, driver, _):
        call = driver.rpc.call
        latest = await call("eth_getBlockByNumber", "latest", False)
        assert latest == await call("eth_getBlockByHash", latest["hash"], False)
        assert latest == await call("eth_getBlockByNumber", "pending", False)
        assert (await call("eth_getBlockByNumber", "earliest", False))["number"] == "0x0"
        assert await call("eth_getBlockByNumber", "0x9", False) is None
        assert await call("eth_getBlockByHash", data(bytes(32)), False) is None
        for tag in ("safe", "finalized"):
            with pytest.raises(RpcRefused, match=f"{tag} block not found"):
                await call("eth_getBlockByNumber", tag, False)
        assert (await driver.choose(to_bytes(latest["hash"]), safe=FORGE.block.hash))["payloadStatus"][
            "status"
        ] == "VALID"
        assert (await call("eth_getBlockByNumber", "safe", False))["number"] == "0x0"
        assert await call("eth_getBlockTransactionCountByNumber", "0x2") == "0x3"
        assert (await call("eth_getHeaderByNumber", "0x2"))["number"] == "0x2"


async def test_raw_forms_decode_to_the_same(tmp_path: Path) -> None:
    async with with_token(tmp_path) as (_, driver, _):
        call = driver.rpc.call
        shown = await call("eth_getBlockByNumber", "0x2", False)
        block = Block.from_rlp(to_bytes(await call("debug_getRawBlock", "0x2")))
        assert data(block.hash) == shown["hash"]
        assert await call("debug_getRawBlock", shown["hash"]) == data(block.rlp())
        assert Header.from_rlp(to_bytes(await call("debug_getRawHeader", "0x2"))) == block.header
        assert len(await call("debug_getRawReceipts", "0x2")) == 3
        assert await call("eth_getRawTransactionByHash", shown["transactions"][1]) == data(block.transactions[1])
        assert int(shown["size"], 16) == len(block.rlp())
        with pytest.raises(RpcRefused, match="block not found"):
            await call("debug_getRawBlock", "0x77")


async def test_transactions_and_receipts_agree(tmp_path: Path) -> None:
    async with with_token(tmp_path) as (_, driver, _):
        call = driver.rpc.call
        block = await call("eth_getBlockByNumber", "0x2", True)
        receipts = await call("eth_getBlockReceipts", "0x2")
        logs = 0
        for position, (tx, receipt) in enumerate(zip(block["transactions"], receipts, strict=True)):
            assert tx == await call("eth_getTransactionByHash", tx["hash"])
            assert tx == await call("eth_getTransactionByBlockNumberAndIndex", "0x2", hex(position))
            assert receipt == await call("eth_getTransactionReceipt", tx["hash"])
            assert (receipt["transactionHash"], receipt["from"], receipt["to"]) == (tx["hash"], tx["from"], tx["to"])
            assert [log["logIndex"] for log in receipt["logs"]] == [hex(logs + n) for n in range(len(receipt["logs"]))]
            logs += len(receipt["logs"])
        deposit, transfer = block["transactions"][:2]
        assert {"sourceHash", "depositReceiptVersion"} <= deposit.keys()
        assert not {"mint", "isSystemTx"} & deposit.keys()
        assert receipts[0]["depositNonce"] == deposit["nonce"] == "0x1"
        assert {"l1Fee", "l1GasUsed", "operatorFeeScalar"} <= receipts[1].keys() and "l1Fee" not in receipts[0]
        assert transfer["yParity"] == transfer["v"] and transfer["accessList"] == []
        price = int(block["baseFeePerGas"], 16) + 10**6
        assert int(transfer["gasPrice"], 16) == int(receipts[1]["effectiveGasPrice"], 16) == price
        assert await call("eth_getTransactionByBlockNumberAndIndex", "0x2", "0x9") is None


async def test_other_kinds_of_transactions(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        legacy = sign_transaction(
            ALICE.private_key, chain_id=901, nonce=0, to=BOB.address, max_fee_per_gas=10**10, kind=LEGACY_TYPE
        )
        (sent,) = await driver.send(legacy)
        waiting = await driver.rpc.call("eth_getTransactionByHash", sent)
        assert waiting["blockHash"] is None and waiting["chainId"] == "0x385" and "yParity" not in waiting
        content = await driver.rpc.call("txpool_contentFrom", data(ALICE.address))
        assert content == {"pending": {"0": waiting}, "queued": {}}
        assert (await driver.rpc.call("txpool_content"))["pending"] == {data(ALICE.address): {"0": waiting}}
        await driver.make_block()
        mined = await driver.rpc.call("eth_getTransactionByHash", sent)
        assert mined["blockNumber"] == "0x1" and int(mined["v"], 16) in (1837, 1838)


async def test_sending_is_refused_in_geths_words(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        raw = FORGE.transfer(0, 0)
        await driver.send(raw)
        cases = {
            "already known": raw,
            "replacement transaction underpriced": FORGE.transfer(0, 0, value=2),
            "transaction type not supported": FORGE.deposit(1),
            "insufficient funds for gas": FORGE.transfer(1, 0, value=10**30),
            "typed transaction too short": b"",
        }
        for text, bad in cases.items():
            with pytest.raises(RpcRefused, match=text) as refused:
                await driver.send(bad)
            assert refused.value.code == -32000
        await driver.make_block()
        with pytest.raises(RpcRefused, match="nonce too low: next nonce 1, tx nonce 0"):
            await driver.send(FORGE.transfer(0, 0, value=2))
        with pytest.raises(RpcRefused) as refused:
            await driver.rpc.call("eth_sendRawTransaction", "no hex")
        assert refused.value.code == -32602


async def test_pending_nonce_counts_the_pool(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        await driver.send(FORGE.transfer(0, 0), FORGE.transfer(0, 1), FORGE.transfer(0, 3))
        assert await driver.rpc.call("eth_getTransactionCount", data(ALICE.address), "pending") == "0x2"
        assert await driver.rpc.call("eth_getTransactionCount", data(ALICE.address), "latest") == "0x0"
        assert await driver.rpc.call("txpool_status") == {"pending": "0x2", "queued": "0x1"}


async def test_calls_with_overrides_and_reverts(tmp_path: Path) -> None:
    async with with_token(tmp_path) as (_, driver, token):
        call = driver.rpc.call
        asks = {"to": token, "data": data(erc20.balance_data(BOB.address))}
        assert int(await call("eth_call", asks, "latest"), 16) == 12
        assert int(await call("eth_call", asks, "0x1"), 16) == 0
        first = (await call("eth_getBlockByNumber", "0x1", False))["hash"]
        assert int(await call("eth_call", asks, {"blockHash": first}), 16) == 0
        answer = assemble("42 push0 mstore 32 push0 return")
        assert int(await call("eth_call", asks, "latest", {token: {"code": data(answer)}}), 16) == 42
        broke = {"from": data(BOB.address), "to": token, "data": data(erc20.transfer_data(ALICE.address, 13))}
        for method in ("eth_call", "eth_estimateGas"):
            with pytest.raises(RpcRefused, match="execution reverted") as refused:
                await call(method, broke)
            assert refused.value.code == 3 and refused.value.data == "0x"
        fine = {**broke, "data": data(erc20.transfer_data(ALICE.address, 1))}
        assert 21_000 < int(await call("eth_estimateGas", fine), 16) < 90_000
        assert await call("eth_getStorageAt", token, "0x0", "latest") == data(bytes(32))
        with pytest.raises(RpcRefused, match="header not found"):
            await call("eth_call", asks, "0x99")


async def test_proofs_and_access_lists(tmp_path: Path) -> None:
    async with with_token(tmp_path) as (component, driver, token):
        call = driver.rpc.call
        transfer = {"from": data(ALICE.address), "to": token, "data": data(erc20.transfer_data(BOB.address, 1))}
        made = await call("eth_createAccessList", transfer, "latest")
        (entry,) = made["accessList"]
        assert entry["address"] == token.lower() and len(entry["storageKeys"]) == 2
        listed = {**transfer, "accessList": made["accessList"]}
        assert int(await call("eth_estimateGas", listed), 16) == int(made["gasUsed"], 16)
        keys = [*entry["storageKeys"], "0x7"]
        proof = await call("eth_getProof", token, keys, "latest")
        assert [found["key"] for found in proof["storageProof"]] == keys
        values = [int(found["value"], 16) for found in proof["storageProof"]]
        assert 12 in values and values[2] == 0  # Bob's, and an empty slot
        root = (await call("eth_getBlockByNumber", "latest", False))["stateRoot"]
        assert data(keccak256(to_bytes(proof["accountProof"][0]))) == root
        await asyncio.to_thread(web3_proof, component.client.rpc_server.url, token, proof["storageHash"])
        failing = {"to": token, "data": data(erc20.transfer_data(BOB.address, 1))}  # from nobody, who owns nothing
        assert (await call("eth_createAccessList", failing, "latest"))["error"] == "execution reverted"
        with pytest.raises(RpcRefused, match="too many storage keys"):
            await call("eth_getProof", token, ["0x1"] * 1_025, "latest")
        with pytest.raises(RpcRefused, match="expected an array"):
            await call("eth_getProof", token, None, "latest")
        await driver.send(signed(3, to=BOB.address, value=1))
        inspected = await call("txpool_inspect")
        (text,) = inspected["pending"][data(ALICE.address)].values()
        assert text.startswith(f"{data(BOB.address)}: 1 wei + ") and inspected["queued"] == {}


def web3_proof(url: str, token: str, storage_hash: str) -> None:
    found = Web3(Web3.HTTPProvider(url)).eth.get_proof(Web3.to_checksum_address(token), [0], "latest")
    assert data(found["storageHash"]) == storage_hash


async def test_a_call_may_pretend_another_block(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        code = assemble("number push0 mstore timestamp 32 mstore coinbase 64 mstore 96 push0 return")
        place = data(b"\x44" * 20)
        pretended = {"number": "0x1234", "time": hex(2**33), "feeRecipient": data(BOB.address)}
        answer = await driver.rpc.call("eth_call", {"to": place}, "latest", {place: {"code": data(code)}}, pretended)
        assert to_bytes(answer) == b"".join(n.to_bytes(32, "big") for n in (0x1234, 2**33)) + bytes(12) + BOB.address
        with pytest.raises(RpcRefused, match="withdrawals is not supported"):
            await driver.rpc.call("eth_call", {"to": place}, "latest", None, {"withdrawals": []})


async def test_a_call_that_never_ends_is_cut_off(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (_, driver):
        forever = assemble("again: @again jump")
        target = data(b"\x99" * 20)
        for method in ("eth_call", "eth_estimateGas"):
            with pytest.raises(RpcRefused, match=r"execution aborted|out of gas|gas required exceeds"):
                await driver.rpc.call(
                    method, {"to": target, "gas": "0xffffffffff"}, "latest", {target: {"code": data(forever)}}
                )


async def test_logs_by_range_topic_and_hash(tmp_path: Path) -> None:
    async with with_token(tmp_path) as (_, driver, _token):
        call = driver.rpc.call
        everything = await call("eth_getLogs", {"fromBlock": "earliest", "toBlock": "latest"})
        assert [int(log["data"], 16) for log in everything] == [5, 7]
        block = await call("eth_getBlockByNumber", "0x2", False)
        assert await call("eth_getLogs", {"blockHash": block["hash"]}) == everything
        to_bob = data(BOB.address.rjust(32, b"\0"))
        assert await call("eth_getLogs", {"fromBlock": "0x0", "topics": [TRANSFER_TOPIC, None, to_bob]}) == everything
        assert await call("eth_getLogs", {"fromBlock": "0x0", "topics": [to_bob]}) == []
        assert await call("eth_getLogs", {"fromBlock": "0x3"}) == [] and await call("eth_getLogs", {}) == []
        receipts = await call("eth_getBlockReceipts", "0x2")
        assert [log for receipt in receipts for log in receipt["logs"]] == everything
        for wanted, text in [
            ({"fromBlock": "0x2", "toBlock": "0x1"}, "invalid block range"),
            ({"fromBlock": "0x0", "toBlock": "0xfffff"}, "block range too large"),
            ({"blockHash": data(bytes(32))}, "unknown block"),
        ]:
            with pytest.raises(RpcRefused, match=text):
                await call("eth_getLogs", wanted)


async def test_limits_of_the_miner_namespace(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (component, driver):
        assert await driver.rpc.call("miner_setMaxDASize", "0x10", "0x0") is True
        assert component.client.max_da_size == (16, 0)
        await driver.send(FORGE.transfer(0, 0))
        assert len((await driver.make_block()).payload.transactions) == 1, "too large for the DA limit"
        assert await driver.rpc.call("miner_setMaxDASize", "0x0", "0x0") is True
        assert await driver.rpc.call("miner_setGasLimit", hex(40_000)) is True
        assert len((await driver.make_block()).payload.transactions) == 1, "the deposit has used more"
        assert await driver.rpc.call("miner_setGasLimit", "0x0") is True
        block = await driver.make_block()
        assert len(block.payload.transactions) == 2 and block.payload.gas_limit == 140_000_000


async def test_a_7702_transaction_is_shown_whole(tmp_path: Path) -> None:
    from flashblocks.execution.signing import sign_authorization

    async with running(tmp_path, FORGE) as (_, driver):
        wish = sign_authorization(BOB.private_key, 901, b"\x55" * 20, 0)
        raw = signed(0, to=BOB.address, gas_limit=100_000, authorization_list=[wish], kind=SET_CODE_TYPE)
        (sent,) = await driver.send(raw)
        await driver.make_block()
        shown = await driver.rpc.call("eth_getTransactionByHash", sent)
        assert shown["type"] == "0x4" and shown["authorizationList"][0]["address"] == data(b"\x55" * 20)
        assert await driver.rpc.call("eth_getCode", data(BOB.address)) == "0xef0100" + "55" * 20
        assert decode_transaction(raw).hash == to_bytes(sent)
