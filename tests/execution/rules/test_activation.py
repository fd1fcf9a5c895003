"""Forks that begin inside a running chain: Holocene, then Isthmus, then Jovian, block by block.

The upgrade transactions of OP's own activation blocks are deposits like any other; what they deploy is the chain's
business. The one that the protocol itself defines, the EIP-2935 contract, is deployed here as on real chains.
"""

from typing import Any

import msgspec
import pytest

from flashblocks.execution import InvalidAttributes, InvalidBlock, OpenBlock, Sealed, execute_block, fees
from flashblocks.execution.assembler import assemble
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.header import EMPTY_REQUESTS_HASH
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.stock import StockBlock
from flashblocks.execution.system_calls import HISTORY_ADDRESS, HISTORY_CODE
from flashblocks.execution.transaction import Transaction, decode_transaction, encode_deposit
from flashblocks.execution.trie import EMPTY_ROOT
from flashblocks.sequencing.deposits import ISTHMUS_SELECTOR, JOVIAN_SELECTOR
from tests.execution.rules.test_stock import nodes_of

STRANGER = b"\x77" * 20
BLOCK_S = 2
ISTHMUS_BLOCK, JOVIAN_BLOCK = 3, 5
MIN_BASE_FEE_WEI = 5_000_000

# EIP-2935: who deploys the contract, and with which code.
HISTORY_DEPLOYER = bytes.fromhex("3462413af4609098e1e27a490f554f260213d685")
HISTORY_INITCODE = bytes.fromhex("60538060095f395ff3") + HISTORY_CODE


def upgrade_deposit(sender: bytes, to: bytes | None, gas: int, data: bytes, intent: str) -> bytes:
    """A network upgrade transaction (specs, protocol/deposits.md: source domain 2)."""
    source = keccak256((2).to_bytes(32, "big") + keccak256(intent.encode()))
    return encode_deposit(source_hash=source, sender=sender, to=to, mint=0, value=0, gas_limit=gas, data=data)


@pytest.fixture
def young(new_chain: Any) -> Any:
    """A chain whose genesis is Holocene, with Isthmus in block 3 and Jovian in block 5."""
    chain = new_chain()
    start = chain.head.timestamp
    genesis = default_genesis(timestamp=start, jovian_time=start + JOVIAN_BLOCK * BLOCK_S)
    genesis["config"]["isthmusTime"] = genesis["config"]["pragueTime"] = start + ISTHMUS_BLOCK * BLOCK_S
    del genesis["alloc"]["0x" + HISTORY_ADDRESS.hex()]
    chain.spec, block, chain.state = load_genesis(genesis)
    chain.head = block.header
    assert (block.header.requests_hash, block.header.withdrawals_root) == (None, EMPTY_ROOT)
    return chain


def attributes_deposit(chain: Any, number: int) -> bytes:
    """A fork's first block still uses the setter of the fork before, as its contract is not upgraded yet."""
    if number != JOVIAN_BLOCK:
        return chain.l1_deposit()  # type: ignore[no-any-return]
    as_before = msgspec.structs.replace(chain.spec, jovian_time=None)
    after, chain.spec = chain.spec, as_before
    raw = chain.l1_deposit()
    chain.spec = after
    return raw  # type: ignore[no-any-return]


def transactions_of(chain: Any, number: int) -> list[bytes]:
    raws = [attributes_deposit(chain, number), chain.deposit(STRANGER, STRANGER, number, mint=5, value=0, gas=50_000)]
    if number == ISTHMUS_BLOCK:
        raws.append(upgrade_deposit(HISTORY_DEPLOYER, None, 250_000, HISTORY_INITCODE, "Isthmus: EIP-2935"))
    if number in (ISTHMUS_BLOCK, JOVIAN_BLOCK):  # no other transactions in the first block of a fork
        return raws
    lookup = assemble(
        "0x" + f"{number - 1:064x} push0 mstore push0 push0 32 push0 push0 0x{HISTORY_ADDRESS.hex()} gas call pop"
    )
    raws += [chain.send(1, STRANGER, value=1, data=b"\1" * 300 * n, gas_limit=120_000) for n in range(8)]
    return [*raws, chain.send(2, None, data=lookup, gas_limit=200_000)]


def minimum(chain: Any, timestamp: int) -> int | None:
    return MIN_BASE_FEE_WEI if chain.spec.is_jovian(timestamp) else None


def build(chain: Any, raws: list[bytes], pieces: int) -> tuple[Sealed, list[Sealed]]:
    """The block of `raws`, sealed after each of `pieces`."""
    attributes = chain.attributes(min_base_fee=minimum(chain, chain.head.timestamp + BLOCK_S))
    block = OpenBlock.start(chain.spec, chain.head, chain.state, attributes)
    seals, at = [], 0
    for piece in range(pieces):
        end = len(raws) * (piece + 1) // pieces
        for raw in raws[at:end]:
            block.append(raw)
        at = end
        seals.append(block.seal())
    return seals[-1], seals


def check_everybody_agrees(chain: Any, raws: list[bytes], sealed: Sealed) -> None:
    """Ten pieces, the importer (of every piece) and stock py-evm."""
    final, pieces = build(chain, raws, 10)
    assert final.header == sealed.header
    for piece in pieces:
        state, receipts = execute_block(chain.spec, chain.head, chain.state, piece.block)
        assert state.root == piece.header.state_root
        assert receipts == piece.receipts
    attributes = chain.attributes(min_base_fee=minimum(chain, sealed.header.timestamp))
    stock = StockBlock(chain.spec, chain.head, nodes_of(chain.state), attributes)
    for raw in raws:
        stock.append(raw)
    assert stock.seal() == sealed.header


def test_forks_begin_in_the_middle_of_a_chain(young: Any) -> None:
    headers = [young.head]
    paid: dict[int, Any] = {}
    for number in range(1, 9):
        raws = transactions_of(young, number)
        first: Transaction = decode_transaction(raws[0])
        assert first.data[:4] == (JOVIAN_SELECTOR if number > JOVIAN_BLOCK else ISTHMUS_SELECTOR)
        sealed, _ = build(young, raws, 1)
        check_everybody_agrees(young, raws, sealed)
        assert all(receipt.status == 1 for receipt in sealed.receipts)
        young.advance(sealed)
        headers.append(sealed.header)
        paid[number] = sealed.receipts[-1]
    forks = [young.spec.rules(header.timestamp).name for header in headers]
    assert forks == ["holocene"] * 3 + ["isthmus"] * 2 + ["jovian"] * 4
    assert [len(header.extra_data) for header in headers] == [9] * 5 + [17] * 4
    assert [header.requests_hash for header in headers] == [None] * 3 + [EMPTY_REQUESTS_HASH] * 6
    # Data counts from the second Jovian block on: the first has only deposits. A fee looks at the parent alone.
    assert [header.blob_gas_used > 0 for header in headers] == [False] * 6 + [True] * 3
    assert [header.base_fee_per_gas == MIN_BASE_FEE_WEI for header in headers] == [False] * 6 + [True] * 3
    assert headers[5].base_fee_per_gas < headers[4].base_fee_per_gas  # Isthmus's rule without a minimum, once more
    assert [paid[number].operator_fee_scalar is not None for number in (2, 4, 6)] == [False, True, True]
    assert [paid[number].da_footprint_gas_scalar for number in (2, 4, 6)] == [None, None, 400]


def test_the_operator_fee_changes_with_the_fork(young: Any) -> None:
    grown = {}
    for number in range(1, 7):
        raws = transactions_of(young, number)
        before = young.state.balance(fees.OPERATOR_FEE_VAULT)
        sealed, _ = build(young, raws, 1)
        young.advance(sealed)
        gas = sum(r.gas_used for r in sealed.receipts if r.type != 0x7E)
        grown[number] = (young.state.balance(fees.OPERATOR_FEE_VAULT) - before, gas, len(raws) - 2)
    assert grown[2][0] == grown[3][0] == grown[5][0] == 0
    gained, gas, count = grown[4]
    assert gained == 2 * gas + 77 * count  # 2,000,000 millionths of the gas, and the constant
    gained, gas, count = grown[6]
    assert gained == 2_000_000 * 100 * gas + 77 * count


def test_the_history_contract_appears_with_isthmus(young: Any) -> None:
    for number in range(1, 6):
        parent = young.head
        sealed, _ = build(young, transactions_of(young, number), 1)
        young.advance(sealed)
        code = young.state.code(HISTORY_ADDRESS)
        assert code == (HISTORY_CODE if number >= ISTHMUS_BLOCK else b"")
        # In its own first block the contract is not there yet when the block begins.
        kept = young.state.storage(HISTORY_ADDRESS, number - 1).to_bytes(32, "big")
        assert kept == (parent.hash if number > ISTHMUS_BLOCK else bytes(32))
    assert sealed.receipts[0].status == 1


def test_attributes_and_headers_of_the_wrong_fork_are_refused(young: Any) -> None:
    for number in range(1, 7):
        jovian = number >= JOVIAN_BLOCK
        wrong = young.attributes(min_base_fee=None if jovian else 1)
        with pytest.raises(InvalidAttributes, match="minBaseFee"):
            OpenBlock.start(young.spec, young.head, young.state, wrong)
        raws = transactions_of(young, number)
        sealed, _ = build(young, raws, 1)
        other = sealed.header.extra_data[:9] if jovian else b"\1" + sealed.header.extra_data[1:] + bytes(8)
        requests = None if sealed.header.requests_hash else EMPTY_REQUESTS_HASH
        for changes, text in (({"extra_data": other}, "extra data"), ({"requests_hash": requests}, "requests hash")):
            header = msgspec.structs.replace(sealed.header, **changes)
            block = msgspec.structs.replace(sealed.block, header=header)
            with pytest.raises(InvalidBlock, match=text):
                execute_block(young.spec, young.head, young.state, block)
        young.advance(sealed)
