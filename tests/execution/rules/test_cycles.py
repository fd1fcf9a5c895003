"""Executing transactions leaves no cycles behind, so the collector may wait."""

import gc
from collections.abc import Iterator
from typing import Any

import pytest

from flashblocks.execution import InvalidTransaction
from flashblocks.execution.assembler import assemble
from flashblocks.execution.code import Code
from flashblocks.execution.state import Account

CALLER = b"\x61" * 20
FAILING = b"\x62" * 20


@pytest.fixture
def no_collector() -> Iterator[None]:
    gc.collect()
    gc.disable()
    yield
    gc.enable()


@pytest.mark.usefixtures("no_collector")
def test_failing_calls_leave_nothing_to_collect(new_chain: Any) -> None:
    calls = assemble(f"again: push0 push0 push0 push0 push0 0x{FAILING.hex()} 5000 call pop @again jump")
    accounts = {
        CALLER: Account(1, 0, Code.of(calls), None),
        FAILING: Account(1, 0, Code.of(assemble("push0 push0 revert")), None),
    }
    chain = new_chain(accounts)
    block = chain.open()
    block.append(chain.send(1, CALLER, gas_limit=300_000))  # first use: imports and traces
    gc.collect()
    for _ in range(5):
        block.append(chain.send(1, CALLER, gas_limit=300_000))
        with pytest.raises(InvalidTransaction):
            block.append(chain.send(1, CALLER, nonce=99, gas_limit=300_000))
        block.seal()
    assert gc.collect() < 100  # the exceptions of pytest.raises
