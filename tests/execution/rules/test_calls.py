"""eth_call and eth_estimateGas: results, reverts, overrides, block environment, and estimates that suffice."""

from typing import Any

import pytest

from flashblocks.execution import AccountOverride, CallReverted, InvalidTransaction, OutOfTime, call, estimate_gas
from flashblocks.execution.assembler import assemble
from flashblocks.execution.code import Code
from flashblocks.execution.state import Account

TARGET = b"\x61" * 20


def with_code(new_chain: Any, source: str) -> Any:
    return new_chain({TARGET: Account(1, 5, Code.of(assemble(source)), None)})


def test_output_logs_and_gas(new_chain: Any) -> None:
    chain = with_code(new_chain, "7 push0 mstore 9 32 push0 log1 32 push0 return")
    result = call(chain.spec, chain.head, chain.state, to=TARGET)
    assert result.output == (7).to_bytes(32, "big")
    assert result.error is None
    assert result.logs[0].topics == ((9).to_bytes(32, "big"),)
    assert 21_000 < result.gas_used < 25_000


def test_a_revert_gives_its_data(new_chain: Any) -> None:
    chain = with_code(new_chain, "7 push0 mstore 32 push0 revert")
    result = call(chain.spec, chain.head, chain.state, to=TARGET)
    assert (result.error, result.output) == ("execution reverted", b"")
    assert result.revert_data == (7).to_bytes(32, "big")
    with pytest.raises(CallReverted, match="execution reverted") as caught:
        estimate_gas(chain.spec, chain.head, chain.state, to=TARGET)
    assert caught.value.revert_data == (7).to_bytes(32, "big")


def test_overrides_reach_everything_and_last_only_for_the_call(new_chain: Any, wallets: list[bytes]) -> None:
    chain = with_code(new_chain, "3 sload push0 mstore 32 push0 return")
    poor = b"\x99" * 20
    overrides = {
        TARGET: AccountOverride(state={3: 44}),
        poor: AccountOverride(balance=10, nonce=3),
    }
    result = call(chain.spec, chain.head, chain.state, sender=poor, to=TARGET, value=10, overrides=overrides)
    assert result.output == (44).to_bytes(32, "big")
    diff = {TARGET: AccountOverride(state_diff={3: 45}, code=assemble("3 sload push0 mstore8 1 push0 return"))}
    assert call(chain.spec, chain.head, chain.state, to=TARGET, overrides=diff).output == b"\x2d"
    assert call(chain.spec, chain.head, chain.state, to=TARGET).output == bytes(32)
    with pytest.raises(InvalidTransaction, match="insufficient funds"):
        call(chain.spec, chain.head, chain.state, sender=poor, to=TARGET, value=10)


def test_creation_returns_the_deployed_code(chain: Any, wallets: list[bytes]) -> None:
    result = call(chain.spec, chain.head, chain.state, sender=wallets[1], data=assemble("3 push0 return"))
    assert result.output == bytes(3)


@pytest.mark.parametrize(
    "source",
    [
        "stop",
        "1 push0 sstore stop",
        "push0 push0 push0 push0 push0 0x" + "62" * 20 + " gas call pop 5 5 sstore stop",
        "gas 60000 lt @fine jumpi push0 push0 revert fine: stop",  # needs more gas than it uses
    ],
)
def test_an_estimate_suffices_and_is_not_lavish(new_chain: Any, source: str) -> None:
    chain = with_code(new_chain, source)
    estimate = estimate_gas(chain.spec, chain.head, chain.state, to=TARGET)
    assert call(chain.spec, chain.head, chain.state, to=TARGET, gas=estimate).error is None
    smaller = int(estimate * 0.95)
    try:
        assert call(chain.spec, chain.head, chain.state, to=TARGET, gas=smaller).error is not None
    except InvalidTransaction as error:
        assert "intrinsic gas too low" in str(error)


def test_estimates_of_transfers_are_exact(chain: Any, wallets: list[bytes]) -> None:
    to = b"\x62" * 20
    assert estimate_gas(chain.spec, chain.head, chain.state, sender=wallets[1], to=to, value=1) == 21_000
    floor = 21_000 + 40 * 100
    assert estimate_gas(chain.spec, chain.head, chain.state, to=to, data=b"\1" * 100) == floor
    with pytest.raises(InvalidTransaction, match="insufficient funds"):
        estimate_gas(chain.spec, chain.head, chain.state, sender=to, to=to, value=1)


def test_an_endless_loop_is_told_as_allowance(new_chain: Any) -> None:
    chain = with_code(new_chain, "x: @x jump")
    with pytest.raises(CallReverted, match="gas required exceeds allowance"):
        estimate_gas(chain.spec, chain.head, chain.state, to=TARGET, gas=200_000)
    assert call(chain.spec, chain.head, chain.state, to=TARGET, gas=200_000).error == "out of gas"


def test_a_call_stops_at_its_deadline(new_chain: Any) -> None:
    chain = with_code(new_chain, "x: @x jump")
    for run in (call, estimate_gas):
        ticks = iter(range(10**9))
        with pytest.raises(OutOfTime):
            run(chain.spec, chain.head, chain.state, to=TARGET, deadline=20.0, clock=lambda t=ticks: float(next(t)))  # type: ignore[misc]
        assert next(ticks) < 30


def test_block_environment_and_block_hashes(chain: Any) -> None:
    opcodes = {0x43: chain.head.number, 0x42: chain.head.timestamp, 0x46: 901, 0x45: chain.head.gas_limit, 0x48: 0}
    for opcode, expected in opcodes.items():
        code = bytes((opcode,)) + assemble("push0 mstore 32 push0 return")
        result = call(chain.spec, chain.head, chain.state, to=TARGET, overrides={TARGET: AccountOverride(code=code)})
        assert int.from_bytes(result.output, "big") == expected
    import msgspec

    later = msgspec.structs.replace(chain.head, number=300, parent_hash=b"\x01" * 32)
    known = {299: b"\xff" * 32, 298: b"\x02" * 32, 44: b"\x03" * 32, 43: b"\x04" * 32}
    for number, expected_hash in (
        (299, b"\x01" * 32),
        (298, b"\x02" * 32),
        (44, b"\x03" * 32),
        (43, bytes(32)),
        (300, bytes(32)),
    ):
        code = assemble(f"{number}") + b"\x40" + assemble("push0 mstore 32 push0 return")
        overrides = {TARGET: AccountOverride(code=code)}
        result = call(chain.spec, later, chain.state, to=TARGET, overrides=overrides, block_hashes=known)
        assert result.output == expected_hash
