"""Building blocks: deposits, fees, sub-blocks, roll-back, forks – and an importer that agrees every time."""

import random
from typing import Any

import pytest

from flashblocks.execution import InvalidTransaction, OpenBlock, OutOfTime, decode_transaction, execute_block
from flashblocks.execution.assembler import assemble
from flashblocks.execution.fees import (
    BASE_FEE_VAULT,
    L1_BLOCK,
    L1_FEE_VAULT,
    OPERATOR_FEE_VAULT,
    SEQUENCER_FEE_VAULT,
    read_l1_parameters,
)
from flashblocks.execution.system_calls import BEACON_ROOTS_ADDRESS, HISTORY_ADDRESS

STRANGER = b"\x77" * 20
# Initcode that deploys a contract which adds one to slot 0, logs it with one topic, and returns it.
COUNTER = assemble("push0 sload 1 add dup1 push0 sstore dup1 push0 mstore 0xabcd 32 push0 log1 32 push0 return")
COUNTER_INITCODE = assemble(f"{len(COUNTER)} dup1 11 push0 codecopy push0 return stop stop stop")[:11] + COUNTER


def mixed_transactions(chain: Any, wallets: list[bytes], count: int, seed: int) -> list[bytes]:
    """Transfers, creations, calls, reverts, out of gas, access lists, data-heavy calls, deposits of every fate."""
    chance = random.Random(seed)
    raws = []
    for index in range(count):
        sender = chance.randrange(1, 9)
        kind = chance.randrange(9)
        if kind == 0:
            raws.append(chain.send(sender, None, data=COUNTER_INITCODE, gas_limit=200_000))
        elif kind == 1:
            raws.append(chain.send(sender, None, data=assemble("push0 push0 revert"), gas_limit=90_000))
        elif kind == 2:
            raws.append(chain.send(sender, None, data=assemble("x: @x jump"), gas_limit=120_000))
        elif kind == 3:
            entries = ((L1_BLOCK, (1, 7)),)
            data = bytes.fromhex("5cf24969")  # basefee()
            raws.append(chain.send(sender, L1_BLOCK, data=data, access_list=entries, gas_limit=60_000))
        elif kind == 4:
            raws.append(chain.send(sender, STRANGER, data=chance.randbytes(300), gas_limit=60_000))
        elif kind == 5:
            fields = {"mint": chance.randrange(10**18), "value": chance.randrange(2 * 10**18)}
            raws.append(chain.deposit(chance.randbytes(20), STRANGER, index, gas=50_000, **fields))
        elif kind == 6:
            raws.append(chain.deposit(wallets[9], None, index, gas=200_000, data=COUNTER_INITCODE))
        else:
            to = chance.choice([*wallets, chance.randbytes(20)])
            raws.append(chain.send(sender, to, value=chance.randrange(10**15), kind=chance.choice([0, 1, 2])))
    return raws


def test_an_empty_block_imports(chain: Any) -> None:
    sealed = OpenBlock.start(chain.spec, chain.head, chain.state, chain.attributes()).seal()
    state, receipts = execute_block(chain.spec, chain.head, chain.state, sealed.block)
    assert state.root == sealed.header.state_root
    assert receipts == ()


def test_the_protocol_writes_beacon_root_and_parent_hash(chain: Any) -> None:
    state = OpenBlock.start(chain.spec, chain.head, chain.state, chain.attributes()).seal().state
    time = chain.head.timestamp + 2
    assert state.storage(BEACON_ROOTS_ADDRESS, time % 8191) == time
    assert state.storage(BEACON_ROOTS_ADDRESS, time % 8191 + 8191) == int.from_bytes(b"\x0b" * 32, "big")
    assert state.storage(HISTORY_ADDRESS, 0) == int.from_bytes(chain.head.hash, "big")


def test_attributes_deposit_is_what_fees_are_read_from(chain: Any) -> None:
    block = chain.open()
    assert block.receipts[0].status == 1
    assert block.receipts[0].deposit_nonce == 0
    l1 = read_l1_parameters(block.state, chain.spec.rules(chain.head.timestamp + 2))
    assert (l1.base_fee, l1.blob_base_fee) == (10**9, 3)
    assert (l1.base_fee_scalar, l1.blob_base_fee_scalar) == (5_227, 1_014_213)
    assert (l1.operator_fee_scalar, l1.operator_fee_constant) == (2_000_000, 77)


def test_every_wei_of_a_transfer_is_accounted_for(chain: Any, wallets: list[bytes]) -> None:
    block = chain.open()
    before = block.seal().state
    raw = chain.send(1, STRANGER, value=12_345)
    receipt = block.append(raw)
    after = block.seal().state
    tip, base_fee = 10**6, block.base_fee
    assert receipt.gas_used == 21_000
    assert receipt.effective_gas_price == base_fee + tip
    operator = 21_000 * 2_000_000 // 10**6 + 77
    assert receipt.l1_fee > 0

    def gained(address: bytes) -> int:
        return int(after.balance(address) - before.balance(address))

    assert gained(STRANGER) == 12_345
    assert gained(SEQUENCER_FEE_VAULT) == 21_000 * tip
    assert gained(BASE_FEE_VAULT) == 21_000 * base_fee
    assert gained(L1_FEE_VAULT) == receipt.l1_fee
    assert gained(OPERATOR_FEE_VAULT) == operator
    assert gained(wallets[1]) == -(12_345 + 21_000 * (base_fee + tip) + receipt.l1_fee + operator)


def test_the_unused_operator_fee_comes_back(chain: Any, wallets: list[bytes]) -> None:
    block = chain.open()
    block.append(chain.send(1, STRANGER, value=1, gas_limit=1_000_000))
    assert block.state.get_balance(OPERATOR_FEE_VAULT) == 21_000 * 2 + 77


@pytest.mark.parametrize(
    ("fields", "status", "gas", "balance"),
    [
        ({"mint": 5, "value": 3}, 1, 21_000, 3),
        ({"mint": 5, "value": 9}, 0, 100_000, 0),  # cannot pay its value: gas limit used, mint kept by the sender
        ({"mint": 5, "gas": 20_999}, 0, 20_999, 0),  # below its intrinsic gas
        ({"mint": 5, "gas": 30_000, "data": b"\1" * 300}, 0, 30_000, 0),  # below the floor of EIP-7623
        ({"data": b"\1" * 300}, 1, 21_000 + 40 * 300, 0),
    ],
)
def test_fates_of_a_deposit(chain: Any, fields: dict[str, Any], status: int, gas: int, balance: int) -> None:
    block = chain.open()
    sender = b"\x55" * 20
    receipt = block.append(chain.deposit(sender, STRANGER, **fields))
    assert (receipt.status, receipt.gas_used, receipt.deposit_nonce) == (status, gas, 0)
    assert block.state.get_nonce(sender) == 1
    assert block.state.get_balance(STRANGER) == balance
    assert block.state.get_balance(sender) == fields.get("mint", 0) - balance
    sealed = block.seal()
    execute_block(chain.spec, chain.head, chain.state, sealed.block)


def test_a_reverting_deposit_keeps_its_mint(chain: Any) -> None:
    block = chain.open()
    receipt = block.append(chain.deposit(b"\x55" * 20, None, mint=9, data=assemble("push0 push0 revert")))
    assert receipt.status == 0
    assert receipt.gas_used < 100_000
    assert block.state.get_balance(b"\x55" * 20) == 9


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("jovian_time", [None, 0])
def test_ten_pieces_equal_one_go_and_the_importer_agrees(
    new_chain: Any, wallets: list[bytes], seed: int, jovian_time: int | None
) -> None:
    chain = new_chain(jovian_time=jovian_time)
    raws = mixed_transactions(chain, wallets, 60, seed)
    pieces = chain.open()
    seals = []
    for first in range(0, 60, 6):
        for raw in raws[first : first + 6]:
            pieces.append(raw)
            refused = chain.send(0, STRANGER, nonce=99)
            with pytest.raises(InvalidTransaction):
                pieces.append(refused)
        seals.append(pieces.seal())
    for count, seal in zip(range(6, 61, 6), seals, strict=True):
        prefix = chain.open()
        for raw in raws[:count]:
            prefix.append(raw)
        assert prefix.seal().header == seal.header
        state, receipts = execute_block(chain.spec, chain.head, chain.state, seal.block)
        assert state.root == seal.header.state_root
        assert receipts == seal.receipts
    assert len({seal.header.hash for seal in seals}) == 10
    assert chain.state.root == chain.head.state_root  # the parent's state is untouched


@pytest.mark.parametrize("sealed_between", [False, True])
def test_rollback_restores_everything(chain: Any, wallets: list[bytes], sealed_between: bool) -> None:
    raws = mixed_transactions(chain, wallets, 30, 11)
    block = chain.open()
    for raw in raws[:10]:
        block.append(raw)
    first = block.seal()
    balances = block.new_account_balances()
    mark = block.mark()
    for raw in raws[10:20]:
        block.append(raw)
        if sealed_between:
            block.seal()
    block.rollback(mark)
    assert block.seal().header == first.header
    assert block.new_account_balances() == balances
    for raw in raws[10:]:
        block.append(raw)
    straight = chain.open()
    for raw in raws:
        straight.append(raw)
    assert block.seal().header == straight.seal().header
    with pytest.raises(ValueError, match="ahead"):
        chain.open().rollback(mark)


def test_forks_go_their_own_way(chain: Any, wallets: list[bytes]) -> None:
    raws = mixed_transactions(chain, wallets, 30, 12)
    block = chain.open()
    for raw in raws[:15]:
        block.append(raw)
    fork = block.fork()
    header = block.seal().header
    for raw in raws[15:]:
        fork.append(raw)
    assert block.seal().header == header
    straight = chain.open()
    for raw in raws:
        straight.append(raw)
    assert fork.seal().header == straight.seal().header
    assert fork.new_account_balances() == straight.new_account_balances()
    for raw in raws[15:]:
        block.append(raw)
    assert block.seal().header == straight.seal().header


def test_new_account_balances_cover_every_change(chain: Any, wallets: list[bytes]) -> None:
    block = chain.open()
    for raw in mixed_transactions(chain, wallets, 40, 13):
        block.append(raw)
    balances = block.new_account_balances()
    state = block.seal().state
    assert all(state.balance(address) == balance for address, balance in balances.items())
    assert set(state.changed_accounts_since(chain.state, [*wallets, STRANGER, L1_FEE_VAULT])) <= set(balances)


def test_a_failed_append_changes_nothing(chain: Any) -> None:
    block = chain.open()
    header = block.seal().header
    bad = [
        chain.send(1, STRANGER, nonce=1),
        chain.send(1, STRANGER, nonce=0, gas_limit=20_999),
        chain.send(1, STRANGER, nonce=0, value=10**30),
        chain.send(1, STRANGER, nonce=0, chain_id=1),
    ]
    for raw in bad:
        with pytest.raises(InvalidTransaction):
            block.append(raw)
        assert block.seal().header == header
        assert block.transaction_count == 1
    block.append(decode_transaction(chain.send(1, STRANGER, nonce=0)))
    execute_block(chain.spec, chain.head, chain.state, block.seal().block)


def test_blocks_in_a_row(chain: Any, wallets: list[bytes]) -> None:
    importer = chain.state
    for seed in range(4):
        block = chain.open()
        for raw in mixed_transactions(chain, wallets, 20, 20 + seed):
            block.append(raw)
        sealed = block.seal()
        importer, _ = execute_block(chain.spec, chain.head, importer, sealed.block)
        assert importer.root == sealed.state.root
        chain.advance(sealed)
    assert importer.storage(HISTORY_ADDRESS, 3) == int.from_bytes(chain.head.parent_hash, "big")


def test_a_deadline_stops_a_running_transaction_and_leaves_the_block(chain: Any) -> None:
    from flashblocks.execution import OutOfTime

    ticks = iter(range(10**9))
    block = chain.open()
    header = block.seal().header
    endless = chain.send(1, None, data=assemble("x: @x jump"), gas_limit=30_000_000)
    with pytest.raises(OutOfTime):
        block.append(endless, deadline=50.0, clock=lambda: float(next(ticks)))
    assert block.seal().header == header
    assert block.append(endless).status == 0


@pytest.mark.parametrize(("rounds", "fits"), [(100_000, True), (4_000_000, True), (40_000_000, False)])
def test_a_long_precompile_call_is_not_begun_without_time_for_it(chain: Any, rounds: int, fits: bool) -> None:
    block = chain.open()
    before = block.seal().header
    data = rounds.to_bytes(4, "big") + bytes(208) + b"\1"
    raw = chain.send(1, bytes(19) + b"\x09", data=data, gas_limit=rounds + 100_000)
    if fits:
        assert block.append(raw, deadline=0.2, clock=lambda: 0.0).gas_used > rounds
        return
    with pytest.raises(OutOfTime, match="long precompile"):
        block.append(raw, deadline=0.2, clock=lambda: 0.0)
    assert block.seal().header == before
