"""The transaction layer: the six holes of py-evm's own are closed, with geth's words; EIP-7702; EIP-7623; EIP-161."""

from typing import Any

import pytest

from flashblocks.execution import InvalidTransaction, decode_transaction
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.assembler import assemble
from flashblocks.execution.code import NO_CODE, Code
from flashblocks.execution.rlp import decode_list, encode, minimal_bytes
from flashblocks.execution.signature import CURVE_ORDER
from flashblocks.execution.signing import sign_authorization
from flashblocks.execution.state import Account
from flashblocks.execution.transaction import SET_CODE_TYPE

STRANGER = b"\x77" * 20


def refusal(block: Any, raw: bytes) -> str:
    header = block.seal().header
    with pytest.raises(InvalidTransaction) as caught:
        block.append(raw)
    assert block.seal().header == header
    return str(caught.value)


# -- the six holes


def test_gas_below_intrinsic_is_refused_before_anything_is_bought(chain: Any) -> None:
    assert refusal(chain.open(), chain.send(1, STRANGER, gas_limit=20_999)).startswith("intrinsic gas too low")


def test_gas_below_the_data_floor_is_refused(chain: Any) -> None:
    raw = chain.send(1, STRANGER, data=b"\xff" * 1000, gas_limit=21_000 + 16 * 1000 + 100)
    assert "insufficient gas for floor data gas cost" in refusal(chain.open(), raw)


def test_receipt_and_charge_agree_where_refund_meets_floor(new_chain: Any, wallets: list[bytes]) -> None:
    from flashblocks.execution import trie
    from flashblocks.execution.keccak import hashed_slot

    clearing = assemble(" ".join(f"push0 {slot} sstore" for slot in range(5)) + " stop")
    storage = trie.update(None, {hashed_slot(slot): 5 for slot in range(5)})
    chain = new_chain({STRANGER: Account(1, 0, Code.of(clearing), storage)})
    chain.l1 = {"base_fee": 0, "blob_base_fee": 0, "operator_fee_scalar": 0, "operator_fee_constant": 0}
    block = chain.open()
    before = block.state.get_balance(wallets[1])
    receipt = block.append(chain.send(1, STRANGER, data=b"\xff" * 600, gas_limit=200_000, max_priority_fee_per_gas=0))
    assert receipt.gas_used == 21_000 + 40 * 600
    assert before - block.state.get_balance(wallets[1]) == receipt.gas_used * block.base_fee


@pytest.mark.parametrize("kind", [0, 1, 2])
def test_a_foreign_chain_id_is_refused(chain: Any, kind: int) -> None:
    assert "invalid chain id" in refusal(chain.open(), chain.send(1, STRANGER, chain_id=999, kind=kind))


def test_a_sender_with_code_is_refused(new_chain: Any, wallets: list[bytes]) -> None:
    chain = new_chain({wallets[1]: Account(0, 10**20, Code.of(b"\0"), None)})
    assert refusal(chain.open(), chain.send(1, STRANGER)).startswith("sender not an eoa")


def test_a_tip_above_the_cap_is_refused(chain: Any) -> None:
    raw = chain.send(1, STRANGER, max_fee_per_gas=10**9, max_priority_fee_per_gas=10**9 + 1)
    assert refusal(chain.open(), raw).startswith("max priority fee per gas higher than max fee per gas")


# -- the other refusals


def test_texts_of_refusals(chain: Any) -> None:
    block = chain.open()
    block.append(chain.send(1, STRANGER, nonce=0))
    assert refusal(block, chain.send(1, STRANGER, nonce=0)).startswith("nonce too low")
    assert refusal(block, chain.send(1, STRANGER, nonce=2)).startswith("nonce too high")
    poor = chain.send(1, STRANGER, nonce=1, value=10_000 * 10**18)
    assert refusal(block, poor).startswith("insufficient funds for gas * price + value")
    cheap = chain.send(1, STRANGER, nonce=1, max_fee_per_gas=1, max_priority_fee_per_gas=0)
    assert refusal(block, cheap).startswith("max fee per gas less than block base fee")
    assert refusal(block, chain.send(1, STRANGER, nonce=1, gas_limit=140_000_000)) == "gas limit reached"
    huge = chain.send(1, None, nonce=1, data=bytes(49_153), gas_limit=10_000_000)
    assert refusal(block, huge).startswith("max initcode size exceeded")


def test_value_gas_l1_and_operator_fee_must_all_be_affordable(new_chain: Any, wallets: list[bytes]) -> None:
    probe = new_chain()
    block = probe.open()
    raw = probe.send(1, STRANGER, value=5)
    receipt = block.append(raw)
    need = 5 + 21_000 * 10**9 + receipt.l1_fee + 21_000 * 2 + 77
    for balance, enough in ((need, True), (need - 1, False)):
        chain = new_chain({wallets[1]: Account(0, balance, NO_CODE, None)})
        if enough:
            assert chain.open().append(raw).status == 1
        else:
            assert "insufficient funds" in refusal(chain.open(), raw)


def test_a_high_s_signature_is_refused(chain: Any) -> None:
    raw = chain.send(1, STRANGER)
    fields = decode_list(raw[1:])
    s = int.from_bytes(fields[11], "big")  # type: ignore[arg-type]
    fields[9] = b"" if fields[9] else b"\1"
    fields[11] = minimal_bytes(CURVE_ORDER - s)
    assert "invalid transaction v, r, s" in refusal(chain.open(), b"\2" + encode(fields))


def test_a_spent_sender_may_leave_dust_but_empty_accounts_leave_nothing(chain: Any) -> None:
    block = chain.open()
    block.append(chain.send(1, STRANGER, value=0))
    assert block.seal().state.account(STRANGER) is None


# -- creation


def test_creation_collision_takes_all_gas(new_chain: Any, wallets: list[bytes]) -> None:
    from flashblocks.execution.keccak import keccak256

    address = keccak256(encode([wallets[1], b""]))[12:]
    chain = new_chain({address: Account(0, 0, Code.of(b"\0"), None)})
    receipt = chain.open().append(chain.send(1, None, data=b"\0", gas_limit=100_000))
    assert (receipt.status, receipt.gas_used, receipt.contract_address) == (0, 100_000, address)


def test_code_size_and_prefix_limits(chain: Any) -> None:
    block = chain.open()
    too_long = chain.send(1, None, data=assemble("24577 push0 return"), gas_limit=10_000_000)
    assert block.append(too_long).status == 0
    longest = chain.send(1, None, data=assemble("24576 push0 return"), gas_limit=10_000_000)
    assert block.append(longest).status == 1
    reserved = chain.send(1, None, data=assemble("0xef push0 mstore8 1 push0 return"), gas_limit=1_000_000)
    assert block.append(reserved).status == 0


def test_selfdestruct_in_the_creating_transaction_removes_the_account(chain: Any) -> None:
    block = chain.open()
    data = assemble(f"5 push0 sstore 0x{STRANGER.hex()} selfdestruct")
    receipt = block.append(chain.send(1, None, data=data, value=9, gas_limit=200_000))
    state = block.seal().state
    assert receipt.status == 1
    assert state.account(receipt.contract_address) is None
    assert state.balance(STRANGER) == 9


def test_nested_calls_to_the_depth_limit(new_chain: Any) -> None:
    # Calls itself with all gas until the 63/64 rule or the depth ends it; every frame counts in slot 0.
    code = assemble("push0 sload 1 add push0 sstore push0 push0 push0 push0 push0 address gas call pop stop")
    creator = assemble("push0 push0 push0 push0 push0 address gas call pop push0 push0 push0 create pop stop")
    chain = new_chain(
        {STRANGER: Account(1, 0, Code.of(code), None), b"\x78" * 20: Account(1, 0, Code.of(creator), None)}
    )
    block = chain.open()
    assert block.append(chain.send(1, STRANGER, gas_limit=100_000_000)).status == 1
    assert 500 < block.state.get_storage(STRANGER, 0) <= 1025
    assert block.append(chain.send(1, b"\x78" * 20, gas_limit=30_000_000)).status == 1


# -- EIP-7702


def delegate(chain: Any, authorizations: list[Any], to: bytes = STRANGER) -> bytes:
    fields = {"authorization_list": authorizations, "kind": SET_CODE_TYPE, "gas_limit": 300_000}
    return chain.send(1, to, **fields)  # type: ignore[no-any-return]


def test_a_delegated_account_runs_the_code(new_chain: Any, wallets: list[bytes]) -> None:
    counter = assemble("push0 sload 1 add push0 sstore stop")
    chain = new_chain({STRANGER: Account(1, 0, Code.of(counter), None)})
    block = chain.open()
    good = sign_authorization(TEST_ACCOUNTS[2].private_key, chain.spec.chain_id, STRANGER, 0)
    assert block.append(delegate(chain, [good], to=wallets[2])).status == 1
    state = block.seal().state
    assert state.code(wallets[2]) == b"\xef\x01\x00" + STRANGER
    assert state.nonce(wallets[2]) == 1
    assert state.storage(wallets[2], 0) == 1
    # A delegated account may still send (EIP-3607 makes an exception), and delegating to zero clears it.
    block.append(chain.send(2, STRANGER, nonce=1))
    clear = sign_authorization(TEST_ACCOUNTS[2].private_key, 0, bytes(20), 2)
    block.append(delegate(chain, [clear]))
    assert block.seal().state.code(wallets[2]) == b""


def test_bad_authorizations_are_skipped(chain: Any, wallets: list[bytes]) -> None:
    key = TEST_ACCOUNTS[2].private_key
    good = sign_authorization(key, 901, STRANGER, 0)
    bad = [
        sign_authorization(key, 902, STRANGER, 0),
        sign_authorization(key, 901, STRANGER, 1),
        sign_authorization(key, 901, STRANGER, 2**64 - 1),
        good._replace(s=CURVE_ORDER - good.s, y_parity=1 - good.y_parity),
        good._replace(r=0),
        good._replace(y_parity=5),
    ]
    block = chain.open()
    assert block.append(delegate(chain, bad)).status == 1
    assert block.state.get_code(wallets[2]) == b""
    assert block.state.get_nonce(wallets[2]) == 0


def test_the_refund_for_an_existing_authority(chain: Any) -> None:
    block = chain.open()
    existing = sign_authorization(TEST_ACCOUNTS[2].private_key, 901, STRANGER, 0)
    fresh = sign_authorization(b"\x99" * 32, 901, STRANGER, 0)
    # 21,000 + 25,000 each; 12,500 back for an account that exists, at most a fifth of what was used.
    assert block.append(delegate(chain, [existing])).gas_used == 46_000 - 46_000 // 5
    assert block.append(delegate(chain, [fresh])).gas_used == 46_000


def test_set_code_transactions_need_a_target_and_authorizations() -> None:
    from flashblocks.execution.signing import sign_transaction

    fields: dict[str, Any] = {"chain_id": 901, "nonce": 0, "kind": SET_CODE_TYPE}
    auth = sign_authorization(b"\x99" * 32, 901, STRANGER, 0)
    with pytest.raises(InvalidTransaction, match="empty auth list"):
        decode_transaction(sign_transaction(b"\x99" * 32, to=STRANGER, **fields))
    with pytest.raises(InvalidTransaction, match="create contract"):
        decode_transaction(sign_transaction(b"\x99" * 32, to=None, authorization_list=[auth], **fields))


def test_create_from_a_delegated_origin_pays_for_initcode_once(new_chain: Any, wallets: list[bytes]) -> None:
    """py-evm charges EIP-3860's words twice where the creating frame's sender is the origin (a delegated account)."""
    factory = assemble("push0 push0 push0 create pop stop")
    with_words = assemble("3200 push0 push0 create pop stop")
    gas = []
    for code in (factory, with_words):
        chain = new_chain({STRANGER: Account(1, 0, Code.of(code), None)})
        block = chain.open()
        auth = sign_authorization(TEST_ACCOUNTS[1].private_key, 901, STRANGER, 1)
        gas.append(block.append(delegate(chain, [auth], to=wallets[1])).gas_used)
    memory = 3 * 100 + 100 * 100 // 512
    expected = memory + 2 * 100 + 3 - 2  # expansion, initcode words, PUSH2 instead of PUSH0 - and STOPs run for nothing
    assert (gas[1] - gas[0]) == expected - expected // 5 or gas[1] - gas[0] == expected
