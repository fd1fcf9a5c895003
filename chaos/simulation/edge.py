"""The public side behind the proxies: their subscribers, the rpc-node (the real pending machine), the clients.

What subscribers and clients see is written into the history, in the form that `chaos.checker` judges.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from chaos.history import Event, GapAnnounced, Invalidated, PendingRead, Preconfirmed, Seen, Sent
from chaos.simulation.blocks import Block, opened, sender_and_nonce, transaction_hash, transfer
from chaos.simulation.execution import ChainDisk, Client
from chaos.simulation.kernel import Process
from chaos.simulation.network import CallRefused, CallUnknown, Link, Network
from flashblocks.preconf.facts import Appended as Shown
from flashblocks.preconf.facts import Backfill, BlockRef, CanonicalBlock, Execute, Resend, Seal
from flashblocks.preconf.facts import Decision as PendingDecision
from flashblocks.preconf.facts import Invalidated as Withdrawn
from flashblocks.preconf.intake import arrival_of
from flashblocks.preconf.pending import PendingMachine
from flashblocks.wire.frames import AnnounceGapFrame, FlashblockFrame
from flashblocks.wire.hexadecimal import data

Record = Callable[[Event], None]

REPLAY_LISTEN_S = 1.0
TICK_S = 0.1
CONFIRM_S = 0.5
READ_S = 0.25
SEND_AGAIN_S = 1.0
CALL_S_MAX = 0.5
BACKFILL_TRIES_MAX = 4
EDGE = "edge"


def seen(at: float, source: str, frame: FlashblockFrame, edge: bool) -> Seen:
    """Reduce a frame to what the checker needs."""
    made = opened(frame.body)
    return Seen(
        at,
        source,
        frame.number,
        frame.index,
        data(frame.payload_id),
        None if made.base is None else data(frame.parent_hash),
        data(frame.block_hash),
        tuple(data(transaction_hash(raw)) for raw in made.diff.transactions),
        frame.epoch,
        edge,
    )


class Witness:
    """A subscriber that writes down what it sees: of every proxy (edge), and of every conductor's own door.

    It starts where the stream is. When a proxy was gone it resumes behind what it has seen; a conductor's door is
    another source each time.
    """

    def __init__(self, network: Network, process: Process, doors: list[tuple[str, bool]], record: Record) -> None:
        self.network, self.process = network, process
        self._doors, self._record = doors, record
        self._connections: dict[str, int] = {}
        self._last: dict[str, tuple[int, int]] = {}

    def start(self) -> None:
        """Subscribe everywhere."""
        for slot, edge in self._doors:
            note, change = partial(self._note, slot, edge), partial(self._on_change, slot)
            Link(self.network, self.process, slot, note, change, partial(self._next, slot) if edge else lambda: None)

    def _next(self, slot: str) -> tuple[int, int] | None:
        last = self._last.get(slot)
        return None if last is None else (last[0], last[1] + 1)

    def _on_change(self, slot: str, up: bool) -> None:
        if up:
            self._connections[slot] = self._connections.get(slot, 0) + 1

    def _note(self, slot: str, edge: bool, frame: FlashblockFrame | AnnounceGapFrame) -> None:
        source = slot if edge else f"{slot}#{self._connections[slot]}"
        if isinstance(frame, AnnounceGapFrame):
            gap = GapAnnounced(self.process.clock.now, source, frame.number, frame.index_from, frame.index_to)
            self._record(gap)
        else:
            self._last[slot] = frame.key
            self._record(seen(self.process.clock.now, source, frame, edge))

    def check(self) -> None:
        """It keeps nothing that could be wrong."""


class RpcNode:
    """The rpc-node: the real pending machine on its own stand-in chain."""

    def __init__(
        self,
        network: Network,
        process: Process,
        disk: ChainDisk,
        proxies: list[str],
        clients: list[str],
        record: Record,
    ) -> None:
        self.network, self.process = network, process
        self.chain = Client(network, process, disk, clients)
        head = self.chain.head
        self.machine = PendingMachine(BlockRef(head.number, head.hash))
        self._proxies, self._clients, self._record = proxies, clients, record
        self._resending: Link | None = None
        self._backfilling = False
        self._shown: tuple[bytes, int] | None = None
        """Payload id and index of the newest flashblock on show."""

    def start(self) -> None:
        """Subscribe and look around."""
        for slot in self._proxies:
            Link(self.network, self.process, slot, self._on_frame, start=self.machine.wanted)
        self.process.every(TICK_S, self._tick)
        self.process.every(CONFIRM_S, self._confirm)
        self.process.every(READ_S, self._read)

    def _tick(self) -> None:
        self._decide(self.machine.tick(self.process.clock.now))

    def _read(self) -> None:
        """A client asks for `latest` and `pending`, as `actors.preconf_follower` answers it."""
        now, latest = self.process.clock.now, self.chain.head
        number, transactions = latest.number, latest.transactions
        followed = self.chain.followed.get(self._shown[0]) if self._shown is not None else None
        if followed is not None and self._shown is not None and not self.machine.is_stale(now):
            steps = followed.steps[: self._shown[1] + 1]
            if followed.header.parent_hash == latest.hash:
                number = followed.header.number
                transactions = tuple(raw for step in steps for raw in step.flashblock.diff.transactions)
        hashes = tuple(data(transaction_hash(raw)) for raw in transactions)
        self._record(PendingRead(now, self.process.name, latest.number, number, hashes))

    def _on_frame(self, frame: FlashblockFrame | AnnounceGapFrame) -> None:
        now = self.process.clock.now
        if isinstance(frame, AnnounceGapFrame):
            self._decide(self.machine.gap_announced(now, frame.number, frame.index_from))
        elif not self.machine.has(frame.number, frame.index, frame.digest) or frame.epoch > self.machine.epoch:
            self._decide(self.machine.streamed(now, arrival_of(frame)))

    def _decide(self, decisions: list[PendingDecision]) -> None:
        now = self.process.clock.now
        for decision in decisions:
            match decision:
                case Execute(arrival):
                    assert arrival.flashblock is not None
                    status = self.chain.apply(arrival.flashblock, committed=arrival.epoch > 0)[0]
                    outcome = self.machine.executed(now, arrival, status.value)  # type: ignore[arg-type]
                    self._decide(outcome)
                case Seal(block, _, _):
                    if self.chain.settle(block.hash):
                        self.chain.set_head(block.hash)
                case Withdrawn(number=number, lost=lost):
                    self._shown = None
                    self._record(Invalidated(now, self.process.name, number, tuple(data(one) for one in lost)))
                case Shown(arrival):
                    self._shown = (arrival.payload_id, arrival.index)
                    for raw in arrival.flashblock.diff.transactions if arrival.flashblock is not None else ():
                        self._record(Preconfirmed(now, data(transaction_hash(raw)), arrival.number))
                case Resend(number, index):
                    self._resend(number, index)
                case Backfill():
                    if not self._backfilling:
                        self._backfilling = True
                        self.process.spawn(self._backfill(decision))
                case _:
                    pass
        self.machine.check()

    def _resend(self, number: int, index: int) -> None:
        if self._resending is not None:
            return
        slot = self._proxies[int(self.process.clock.draw() * len(self._proxies))]
        self._resending = Link(self.network, self.process, slot, self._on_frame, start=lambda: (number, index))
        self.process.after(REPLAY_LISTEN_S, self._end_resend)

    def _end_resend(self) -> None:
        if self._resending is not None:
            self._resending.close()
            self._resending = None

    async def _backfill(self, wanted: Backfill) -> None:
        try:
            first = int(self.process.clock.draw() * len(self._clients))
            for offset in range(BACKFILL_TRIES_MAX):
                client = self._clients[(first + offset) % len(self._clients)]
                try:
                    if await self._backfill_from(client, wanted):
                        return
                except (CallRefused, CallUnknown):
                    continue
        finally:
            self._backfilling = False

    async def _backfill_from(self, client: str, wanted: Backfill) -> bool:
        last = wanted.last
        if last is None:
            last = (await self._call(client, "latest")).number
            if last < wanted.first:
                return False
        for number in range(wanted.first, last + 1):
            block: Block = await self._call(client, "block", number)
            if number == wanted.last and wanted.tip_hash not in (None, block.hash):
                return False
            if not await self._import(client, block):
                return False
        return True

    async def _import(self, client: str, block: Block) -> bool:
        branch = [block]
        while self.chain.state_of(branch[-1].parent_hash) is None:
            branch.append(await self._call(client, "block", branch[-1].parent_hash))
        for each in reversed(branch):
            if each.envelope is None or self.chain.take(each.envelope) != "VALID":
                return False
            hashes = tuple(transaction_hash(raw) for raw in each.transactions)
            fact = CanonicalBlock(each.number, each.hash, each.parent_hash, hashes)
            decisions = self.machine.canonical(self.process.clock.now, fact)
            if self.machine.head.hash == each.hash:
                self.chain.set_head(each.hash)
            self._decide(decisions)
        return True

    async def _call(self, slot: str, method: str, *arguments: object) -> Block:
        block: Block = await self.network.call(self.process, slot, method, *arguments, timeout_s=CALL_S_MAX)
        return block

    def _confirm(self) -> None:
        for _ in range(2):
            client = self._clients[int(self.process.clock.draw() * len(self._clients))]
            self.process.spawn(self._observe(client))

    async def _observe(self, client: str) -> None:
        try:
            block = await self._call(client, "latest")
        except (CallRefused, CallUnknown):
            return
        now = self.process.clock.now
        self._decide(self.machine.observed(now, client, BlockRef(block.number, block.hash)))

    def check(self) -> None:
        """The machine's invariants."""
        self.machine.check()


def _is_open(raw: bytes, nonces: dict[int, int]) -> bool:
    sender, nonce = sender_and_nonce(raw)
    return nonce >= nonces.get(sender, 0)


class Senders:
    """Clients with a nonce each; their transactions go to every pool, again until they are in a block."""

    def __init__(
        self, network: Network, process: Process, clients: list[str], period_s: float, senders: int, record: Record
    ) -> None:
        self.network, self.process = network, process
        self._clients, self._period_s, self._record = clients, period_s, record
        self._nonces = dict.fromkeys(range(1, senders + 1), 0)
        self._waiting: list[tuple[float, bytes]] = []

    def start(self) -> None:
        """Begin to send."""
        self.process.every(self._period_s, self._send)
        self.process.every(SEND_AGAIN_S, self._send_again)

    def _send(self) -> None:
        sender = 1 + int(self.process.clock.draw() * len(self._nonces))
        raw = transfer(sender, self._nonces[sender])
        self._nonces[sender] += 1
        self._record(Sent(self.process.clock.now, data(transaction_hash(raw))))
        self._waiting.append((self.process.clock.now, raw))
        self._to_all(raw)

    def _to_all(self, raw: bytes) -> None:
        for client in self._clients:
            self.network.post(self.process, client, "submit", raw)

    def _send_again(self) -> None:
        nonces: dict[int, int] = {}
        for client in self._clients:
            component = self.network.slots[client].component
            if component is not None:
                nonces = component.head.state.nonces
                break
        self._waiting = [one for one in self._waiting if _is_open(one[1], nonces)]
        for sent_at, raw in self._waiting:
            if self.process.clock.now - sent_at > SEND_AGAIN_S:
                self._to_all(raw)

    def check(self) -> None:
        """It keeps nothing that could be wrong."""
