"""How fast the execution room is, as ratios to stock py-evm in the same run: `python benchmarks/execution.py [--json]`.

CPU time, one core, medians. Sections: real blocks (where FLASHBLOCKS_VECTORS or ../shared/vectors has them), building
flashblocks of mixed transfers and ERC-20, the state root over 100 k accounts, hostile code, memory.
"""

import argparse
import gc
import json
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from execution_workloads import HOSTILE, TOKEN, World, erc20_transfer, hostile_transaction, world

from actors.trace_keeping import collect, drain
from flashblocks.execution import (
    OpenBlock,
    OutOfTime,
    Transaction,
    WorldState,
    decode_transaction,
    recover_sender,
    trie,
)
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.code import NO_CODE
from flashblocks.execution.compiler import program
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.replay import build, load_fixture
from flashblocks.execution.rlp import encode_uint
from flashblocks.execution.state import Account
from flashblocks.execution.stock import StockBlock, build_stock
from flashblocks.execution.trace_file import EMPTY, FILE_NAME, TraceFile

FLASHBLOCK_GAS = 14_000_000
FLASHBLOCK_S = 0.2
STATE_ACCOUNTS = 100_000
DEADLINE_S = 0.15


def cpu(run: Callable[[], Any]) -> float:
    """CPU seconds of one call, without the collector."""
    gc.collect()
    gc.disable()
    started = time.process_time()
    run()
    seconds = time.process_time() - started
    gc.enable()
    return seconds


def real_blocks(repeats: int) -> dict[str, Any]:
    """The vectors as ten sub-blocks: at first sight, with a trace file, warm, and on stock py-evm."""
    default = Path(__file__).parents[2] / "shared" / "vectors"
    paths = sorted(Path(os.environ.get("FLASHBLOCKS_VECTORS", default)).glob("**/*.json.gz"))
    fixtures = [load_fixture(path) for path in paths]
    if not fixtures:
        return {"skipped": "no vectors"}
    gas = sum(build(fixture, 10).gas_used for fixture in fixtures)

    def all_blocks() -> None:
        for fixture in fixtures:
            assert build(fixture, 10).hash == fixture.expected_hash

    program.cache.programs.clear()
    cold = cpu(all_blocks)
    size, second = from_disk(all_blocks)
    for _ in range(program.HOT_VISITS):
        all_blocks()
    full_size, settled = from_disk(all_blocks)
    warm = statistics.median(cpu(all_blocks) for _ in range(repeats))
    stock = cpu(lambda: [build_stock(fixture, 10) for fixture in fixtures])
    speeds = {"first sight": cold, "traces of one pass": second, "traces of all": settled, "warm": warm, "stock": stock}
    found: dict[str, Any] = {f"{name} Mgas/s": round(gas / seconds / 1e6, 1) for name, seconds in speeds.items()}
    found["ratio warm to stock"] = round(stock / warm, 1)
    found["trace file MB after one pass, after many"] = [round(size / 1e6, 2), round(full_size / 1e6, 2)]
    return found


def from_disk(blocks: Callable[[], None]) -> tuple[int, float]:
    """The size in bytes of the trace file of this process, and the CPU seconds of `blocks` with it in a fresh cache."""
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / FILE_NAME
        drain(collect(program.cache, EMPTY)).write(path)
        file = TraceFile.read(path)
        program.cache.programs.clear()
        program.cache.find_stored = file.find
        try:
            return path.stat().st_size, cpu(blocks)
        finally:
            program.cache.find_stored = lambda code_hash: {}


def mixed(chain: World, count: int) -> list[bytes]:
    """Transfers and ERC-20 transfers, one of each in turn."""
    raws = []
    for index in range(count):
        sender = index % len(TEST_ACCOUNTS)
        to = keccak256(index.to_bytes(4, "big"))[12:]
        if index % 2:
            raws.append(chain.send(sender, TOKEN, data=erc20_transfer(to, 1), gas_limit=80_000))
        else:
            raws.append(chain.send(sender, to, value=1))
    return raws


def build_time(chain: World, raws: Sequence[bytes], pieces: int) -> tuple[list[float], list[float], OpenBlock]:
    """Seconds per flashblock (execute and seal), and per transaction for decoding and recovery before it."""
    admitted: list[Transaction] = []
    before = cpu(lambda: admitted.extend(decode_transaction(raw) for raw in raws))
    before += cpu(lambda: [(recover_sender(tx), tx.hash, tx.fastlz_size) for tx in admitted])
    block = chain.open()
    block.seal()
    times = []
    size = len(admitted) // pieces

    def one(first: int) -> None:
        for tx in admitted[first : first + size]:
            block.append(tx)
        block.seal()
        block.new_account_balances()

    for first in range(0, size * pieces, size):
        times.append(cpu(lambda first=first: one(first)))  # type: ignore[misc]
    return times, [before / len(raws)], block


def flashblocks() -> dict[str, Any]:
    """Ten flashblocks of 14 Mgas and ten at 200 tx/s; the same transactions on stock py-evm."""
    chain = world()
    raws = mixed(chain, 4_400)
    times, admission, block = build_time(chain, raws, 10)
    small_chain = world()
    small, _, _ = build_time(small_chain, mixed(small_chain, 400), 10)
    stock_chain = world()
    few = mixed(stock_chain, 200)
    stock = StockBlock(stock_chain.spec, stock_chain.head, stock_chain.nodes(), stock_chain.attributes())
    stock.append(stock_chain.l1_deposit())

    def on_stock() -> None:
        for raw in few:
            stock.append(raw)
        stock.seal()

    stock_each = cpu(on_stock) / len(few)
    each = sum(times) / len(raws)
    return {
        "Mgas per flashblock": round(block.gas_used / 10 / 1e6, 1),
        "build and seal p50 ms": round(statistics.median(times) * 1e3, 1),
        "build and seal max ms": round(max(times) * 1e3, 1),
        "at 200 tx/s p50 ms": round(statistics.median(small) * 1e3, 2),
        "us per transaction": round(each * 1e6, 1),
        "us for decode, sender, hash, FastLZ": round(admission[0] * 1e6, 1),
        "stock us per transaction (sender and one seal included)": round(stock_each * 1e6, 1),
        "ratio to stock": round(stock_each / (each + admission[0]), 1),
    }


def state_root() -> dict[str, Any]:
    """Microseconds of state root per touched account, at 100 k accounts; memory per account."""
    before = resident_bytes()
    keys = [keccak256(n.to_bytes(8, "big")).hex() for n in range(STATE_ACCOUNTS)]
    state = WorldState().with_accounts({key: Account(n, 10**18 + n, NO_CODE, None) for n, key in enumerate(keys)})
    per_account = (resident_bytes() - before) / STATE_ACCOUNTS
    gc.collect()
    gc.freeze()
    found: dict[str, Any] = {"bytes per account": round(per_account)}
    for touched in (100, 300, 1000):
        changes = {keys[(n * 7919) % STATE_ACCOUNTS]: Account(n, 5, NO_CODE, None) for n in range(touched)}
        seconds = statistics.median(cpu(lambda c=changes: state.with_accounts(c).root) for _ in range(7))  # type: ignore[misc]
        found[f"us per account of {touched}"] = round(seconds / touched * 1e6, 1)
    values = [b"\xaa" * 120] * 1000
    found["us per transaction-root leaf"] = round(cpu(lambda: trie.ordered_root(values)) / 1000 * 1e6, 1)
    assert encode_uint(0) == b"\x80"
    gc.unfreeze()
    return found


def resident_bytes() -> int:
    """The process's resident memory."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def hostile() -> dict[str, Any]:
    """Mgas/s of code that was written to be slow, at first sight, and how far a deadline is overrun by it."""
    found: dict[str, Any] = {}
    for name in HOSTILE:
        program.cache.programs.clear()
        chain = world(hostile=name)
        block = chain.open()
        raw = hostile_transaction(chain, gas_limit=FLASHBLOCK_GAS)
        tx = decode_transaction(raw)
        recover_sender(tx)
        started = time.process_time()
        stopped = False
        mark = block.mark()
        gc.disable()
        try:
            block.append(tx, deadline=started + DEADLINE_S, clock=time.process_time)
        except OutOfTime:
            stopped = True
        over = time.process_time() - started - DEADLINE_S
        gc.enable()
        block.rollback(mark)
        program.cache.programs.clear()
        seconds = cpu(lambda b=block, t=tx: b.append(t))  # type: ignore[misc]
        used = block.receipts[-1].gas_used
        found[name] = {
            "Mgas/s": round(used / seconds / 1e6, 1),
            "ms for 14 Mgas": round(FLASHBLOCK_GAS / used * seconds * 1e3),
            "stopped": stopped,
            "ms beyond the deadline": round(over * 1e3, 1) if stopped else 0,
        }
    found["worst Mgas/s"] = min(entry["Mgas/s"] for entry in found.values())
    found["worst ms beyond the deadline"] = max(
        entry["ms beyond the deadline"] for entry in found.values() if isinstance(entry, dict)
    )
    return found


SECTIONS: dict[str, Callable[[], dict[str, Any]]] = {
    "real blocks": lambda: real_blocks(3),
    "flashblocks": flashblocks,
    "state root": state_root,
    "hostile": hostile,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--only", choices=list(SECTIONS))
    arguments = parser.parse_args()
    found = {name: run() for name, run in SECTIONS.items() if arguments.only in (None, name)}
    if arguments.json:
        print(json.dumps(found))
        return
    for name, figures in found.items():
        print(name)
        for key, value in figures.items():
            print(f"  {key}: {value}")


if __name__ == "__main__":
    main()
