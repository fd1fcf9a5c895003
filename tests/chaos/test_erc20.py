"""The token of the load generator behaves as ERC-20 says, run by our own execution engine."""

import pytest

from chaos import erc20
from flashblocks.execution import call, default_genesis, load_genesis
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.calls import AccountOverride, CallResult
from flashblocks.wire.keccak import keccak256

TOKEN = b"\x70" * 20
ALICE, BOB = (account.address for account in TEST_ACCOUNTS[:2])
SPEC, BLOCK, STATE = load_genesis(default_genesis())


def slot_of(owner: bytes) -> int:
    return int.from_bytes(keccak256(owner.rjust(32, b"\0") + bytes(32)), "big")


def run(data: bytes, sender: bytes = ALICE, balances: dict[bytes, int] | None = None) -> CallResult:
    storage = {slot_of(owner): amount for owner, amount in (balances or {}).items()}
    overrides = {TOKEN: AccountOverride(code=erc20.runtime_code(), state=storage)}
    return call(SPEC, BLOCK.header, STATE, sender=sender, to=TOKEN, data=data, overrides=overrides)


def number(result: CallResult) -> int:
    assert result.error is None
    return int.from_bytes(result.output, "big")


def test_deploying_returns_the_runtime_code() -> None:
    result = call(SPEC, BLOCK.header, STATE, sender=ALICE, data=erc20.deployment_code(), gas=erc20.DEPLOY_GAS)
    assert result.error is None
    assert result.output == erc20.runtime_code()


def test_reading() -> None:
    assert number(run(erc20.selector("decimals()"))) == 18
    assert number(run(erc20.selector("totalSupply()"))) == erc20.SUPPLY
    assert number(run(erc20.balance_data(BOB), balances={BOB: 7})) == 7
    assert number(run(erc20.balance_data(ALICE), balances={BOB: 7})) == 0


def test_a_transfer_answers_true_and_tells_its_event() -> None:
    result = run(erc20.transfer_data(BOB, 5), balances={ALICE: 5, BOB: 1})
    assert number(result) == 1
    (log,) = result.logs
    assert log.address == TOKEN
    assert log.topics == (
        keccak256(b"Transfer(address,address,uint256)"),
        ALICE.rjust(32, b"\0"),
        BOB.rjust(32, b"\0"),
    )
    assert int.from_bytes(log.data, "big") == 5
    assert result.gas_used < erc20.TRANSFER_GAS


@pytest.mark.parametrize("data", [erc20.transfer_data(BOB, 6), b"", b"\1\2\3\4", erc20.selector("mint()")])
def test_what_cannot_be_done_reverts(data: bytes) -> None:
    assert run(data, balances={ALICE: 5}).error is not None
