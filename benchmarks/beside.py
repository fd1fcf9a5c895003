"""What runs beside a measurement, in processes of its own: the wallets, and a clock that tells the machine's noise."""

import asyncio
import multiprocessing
import os
import secrets
import time
from collections import deque
from multiprocessing.connection import Connection
from pathlib import Path

from actors.ingress_targets import PoolTarget
from actors.rpc_client import RpcRefused, RpcUnknown
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.signing import sign_transaction
from flashblocks.execution.transaction import Transaction, decode_transaction
from flashblocks.ingress.outbox import BATCH_TRANSACTIONS_MAX, PACE_S

WAITING_MAX = 20_000
TICKS_PER_S = os.sysconf("SC_CLK_TCK")


class ControlClock:
    """A process that sleeps until given times and notes how late it woke: what the machine does to anybody."""

    def __init__(self) -> None:
        self._ours, theirs = multiprocessing.get_context("spawn").Pipe()
        self._process = multiprocessing.get_context("spawn").Process(target=_keep_time, args=(theirs,), daemon=True)

    def start(self) -> None:
        self._process.start()

    def note(self, at_s: list[float]) -> None:
        """Wake at these times (Unix seconds, rising, later than those given before)."""
        self._ours.send(at_s)

    def stop(self) -> dict[float, float]:
        """How late it woke (seconds), by the time it was due."""
        self._ours.send(None)
        late: dict[float, float] = self._ours.recv()
        self._process.join()
        return late


def _keep_time(pipe: Connection) -> None:
    late: dict[float, float] = {}
    while (times := pipe.recv()) is not None:
        for due_s in times:
            time.sleep(max(0.0, due_s - time.time()))
            late[due_s] = time.time() - due_s
    pipe.send(late)


class Wallets:
    """A process that signs transfers of ten accounts at a steady rate and hands them to pools as an ingress does.

    `urls` are the pools' public RPC; nothing waits for a pool that is slow.
    """

    def __init__(self, urls: list[str], secret: bytes, chain_id: int, tps: float) -> None:
        self._process = multiprocessing.get_context("spawn").Process(
            target=_send_for_ever, args=(urls, secret, chain_id, tps), daemon=True
        )

    def start(self) -> None:
        self._process.start()

    def stop(self) -> None:
        self._process.terminate()
        self._process.join()


def _send_for_ever(urls: list[str], secret: bytes, chain_id: int, tps: float) -> None:
    asyncio.run(_send(urls, secret, chain_id, tps))


async def _send(urls: list[str], secret: bytes, chain_id: int, tps: float) -> None:
    queues: list[deque[Transaction]] = [deque(maxlen=WAITING_MAX) for _ in urls]
    async with asyncio.TaskGroup() as tasks:
        for url, queue in zip(urls, queues, strict=True):
            tasks.create_task(_hand_over(url, secret, queue))
        nonces = [0] * len(TEST_ACCOUNTS)
        began, sent = time.perf_counter(), 0
        while True:
            await asyncio.sleep(max(0.0, began + sent / tps - time.perf_counter()))
            account = sent % len(TEST_ACCOUNTS)
            raw = sign_transaction(
                TEST_ACCOUNTS[account].private_key,
                chain_id=chain_id,
                nonce=nonces[account],
                to=secrets.token_bytes(20),
                value=1,
                max_fee_per_gas=10**10,
                max_priority_fee_per_gas=10**6,
            )
            transaction = decode_transaction(raw)
            nonces[account] += 1
            sent += 1
            for queue in queues:
                queue.append(transaction)


async def _hand_over(url: str, secret: bytes, queue: deque[Transaction]) -> None:
    target = PoolTarget(url, lambda up: None, secret)
    target.start()
    while True:
        await asyncio.sleep(PACE_S)
        batch = [queue.popleft() for _ in range(min(len(queue), BATCH_TRANSACTIONS_MAX))]
        if batch:
            try:
                await target.send(batch)
            except (RpcUnknown, RpcRefused):
                pass  # it was killed; that is what is being measured


def cpu_s(pid: int) -> float:
    """Processor time of a process so far, seconds; 0 when it is gone."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    return (int(fields[11]) + int(fields[12])) / TICKS_PER_S


def quantiles(values: list[float]) -> dict[str, float]:
    """The usual points of a distribution, in its own unit."""
    if not values:
        return {}
    ordered = sorted(values)
    points = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1.0}
    return {name: round(ordered[min(len(ordered) - 1, int(point * len(ordered)))], 1) for name, point in points.items()}
