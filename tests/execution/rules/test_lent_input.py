"""Inputs of calls that are too long to copy for nothing: lent memory reads like bytes, and is given back."""

from typing import Any

import pytest

from flashblocks.execution import OpenBlock
from flashblocks.execution.assembler import assemble
from flashblocks.execution.code import Code
from flashblocks.execution.compiler import program
from flashblocks.execution.compiler.runtime import COPIED_INPUT_BYTES
from flashblocks.execution.state import Account
from flashblocks.execution.stock import StockBlock
from tests.execution.rules.test_stock import nodes_of

CALLER, READER, DEEPER = (bytes([0x91 + n]) * 20 for n in range(3))

# Reads words at, across and beyond the end of its input, copies pieces of it, and passes it on.
READER_CODE = assemble(
    f"""
    push0 calldataload calldatasize 32 swap1 sub calldataload add
    calldatasize 5 swap1 sub calldataload add calldatasize 9 add calldataload add push0 mstore
    calldatasize push0 64 calldatacopy                 ; all of it
    70 calldatasize 40 swap1 sub 20000 calldatacopy    ; its end and zeros
    calldatasize 96 add 64 keccak256 32 mstore
    20096 push0 log0
    push0 push0 calldatasize 64 0x{DEEPER.hex()} gas delegatecall pop
    calldatasize push0 mstore 32 push0 return
    """
)
DEEPER_CODE = assemble(
    "calldatasize 33 swap1 sub calldataload push0 mstore caller 32 mstore 64 push0 log0 push0 push0 revert"
)


def caller_code(size: int) -> bytes:
    """Calls the reader in every way with `size` bytes, then lets its own memory grow."""
    calls = " ".join(
        f"32 push0 {size} 7 {value} 0x{READER.hex()} 5000000 {kind} pop"
        for kind, value in (("call", "push0"), ("callcode", "push0"), ("delegatecall", ""), ("staticcall", ""))
    )
    precompiles = " ".join(f"64 {size + 900} {size} 3 0x{number:040x} 900000 staticcall pop" for number in range(1, 18))
    return assemble(
        f"0x{'ab' * 32} 100 mstore 0x{'cd' * 32} {size - 20} mstore {calls} {precompiles} "
        f"7 {size + 40_000} mstore {size + 2_000} push0 keccak256 push0 mstore 32 push0 log0 stop"
    )


@pytest.mark.parametrize("hot_visits", [1, 10**9])
@pytest.mark.parametrize("size", [COPIED_INPUT_BYTES, COPIED_INPUT_BYTES + 1, 19_999])
def test_lent_input_reads_like_bytes(
    new_chain: Any, monkeypatch: pytest.MonkeyPatch, size: int, hot_visits: int
) -> None:
    monkeypatch.setattr(program, "HOT_VISITS", hot_visits)
    codes = {CALLER: caller_code(size), READER: READER_CODE, DEEPER: DEEPER_CODE}
    chain = new_chain({address: Account(1, 0, Code.of(code), None) for address, code in codes.items()})
    for code in codes.values():
        Code.of(code).programs = None
    monkeypatch.setattr(program, "cache", program.TraceCache())
    attributes = chain.attributes()
    ours = OpenBlock.start(chain.spec, chain.head, chain.state, attributes)
    stock = StockBlock(chain.spec, chain.head, nodes_of(chain.state), attributes)
    for raw in (chain.l1_deposit(), chain.send(1, CALLER, gas_limit=100_000_000)):
        receipt = ours.append(raw)
        assert receipt.status == 1
        assert receipt.consensus_rlp() == stock.append(raw).encode()
    assert len(receipt.logs) == 4  # the static call may not log, and the innermost call reverts
    assert ours.seal().header == stock.seal()
