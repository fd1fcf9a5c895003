"""rollup-boost: the real core between the Engine API, the two execution clients, and the conductor.

Wired as `actors.rollup_boost` and `actors.rollup_boost_engine` do it; the core decides, this carries out.
"""

from __future__ import annotations

import itertools
from typing import Any

from actors.rollup_boost_engine import BUILDER_CALLS_WAITING_MAX, GET_PAYLOAD_S_MAX, UPDATES_KEPT_MAX
from chaos.simulation.blocks import Block, opened
from chaos.simulation.kernel import Future, Lock, Process
from chaos.simulation.network import CallRefused, CallUnknown, Connection, Link, Network
from flashblocks.rollup_boost.core import Core
from flashblocks.rollup_boost.facts import (
    AnswerEnvelope,
    AnswerFrom,
    Applied,
    Apply,
    AskForBlocks,
    BlocksOffered,
    Called,
    Committed,
    ConductorLost,
    Decision,
    EndBuilderJob,
    Fact,
    FlashblockArrived,
    Forkchoice,
    Forward,
    HeadSeen,
    Leadership,
    Linked,
    Offering,
    PayloadAsked,
    PayloadIdAnswered,
    Refused,
    RequestResend,
    ResumeBuilder,
    Sealed,
    SetHealth,
    StandIn,
    Status,
    StoodIn,
    Target,
    Tick,
    WakeAt,
)
from flashblocks.rollup_boost.rules import Rules
from flashblocks.rollup_boost.selection import Offer
from flashblocks.wire.engine import Envelope, PayloadAttributes
from flashblocks.wire.frames import (
    CommittedFrame,
    FlashblockFrame,
    Frame,
    HealthFrame,
    LeadershipFrame,
    RefusedFrame,
    SealedFrame,
)
from flashblocks.wire.payload_id import payload_id

CLIENT_S_MAX = 1.0
HEAD_CHECK_S = 2.0
RESEND_CONNECT_S_MAX = 0.5


class RollupBoost:
    """One rollup-boost of one group."""

    keeps_prefix = True
    """A mutant answers getPayload with the fallback EL's block, whatever is promised."""

    def __init__(
        self, network: Network, process: Process, group: str, flashblock_s: float, clock_skew: list[float]
    ) -> None:
        self.core = Core(Rules(flashblock_time_s=flashblock_s))
        self.network, self.process = network, process
        self._slots = {Target.EXECUTION: f"{group}/fallback-el", Target.BUILDER: f"{group}/builder"}
        self._skew = clock_skew
        self._tokens = itertools.count(1)
        self._asked: dict[int, Future] = {}
        self._l2_blocks: dict[int, Envelope | None] = {}
        self._updates: dict[bytes, tuple[bytes, PayloadAttributes]] = {}
        self._conductors: list[Connection] = []
        self._builder_turn = Lock(process)
        self._wakes = 0
        self._resending = False
        self._builder_link: Link | None = None

    def start(self) -> None:
        """Look for the peers."""
        self._builder_link = self._new_builder_link()
        self.network.watch(self.process, self._slots[Target.EXECUTION], self._on_execution)
        self.process.every(HEAD_CHECK_S, self._watch_heads)

    def _on_execution(self, up: bool) -> None:
        self.tell(Linked(Target.EXECUTION, up))

    def _now(self) -> float:
        return self.process.clock.now + self._skew[0]

    # The core's door

    def tell(self, fact: Fact) -> list[Decision]:
        """Give the core a fact and carry out what it decides."""
        decisions = self.core.step(fact, self._now())
        for decision in decisions:
            self._carry_out(decision)
        return decisions

    def _carry_out(self, decision: Decision) -> None:
        match decision:
            case Apply():
                self.process.spawn(self._apply(decision))
            case Offering(frame):
                self._to_conductor(frame)
            case StandIn(identifier, index):
                self.process.spawn(self._stand_in(identifier, index))
            case AskForBlocks():
                self.process.spawn(self._ask_for_blocks(decision))
            case AnswerEnvelope():
                self._resolve(decision.token, decision.envelope)
            case AnswerFrom():
                self._resolve(decision.token, self._l2_blocks.get(decision.token) if decision.source else None)
            case EndBuilderJob(builder_id):
                self.process.spawn(self._call_builder("get_payload", builder_id))
            case ResumeBuilder(identifier):
                if identifier in self._updates:
                    self.process.spawn(self._forkchoice_to_builder(*self._updates[identifier], identifier))
            case RequestResend():
                self.process.spawn(self._ask_again())
            case SetHealth(health):
                self._to_conductor(HealthFrame(health.status, health.detail))
            case WakeAt(at_s):
                self._wakes += 1
                self.process.after(max(0.0, at_s - self._now()), self._tick, self._wakes)
            case _:
                pass  # Forward is read by `forkchoice`; Stream is for others than conductors; Count is a metric

    def _tick(self, wake: int) -> None:
        if wake == self._wakes:
            self.tell(Tick())

    # The execution clients

    async def _apply(self, apply: Apply) -> None:
        frame = apply.frame
        try:
            status, expected, error = await self.network.call(
                self.process, self._slots[apply.target], "apply_flashblock", frame, timeout_s=CLIENT_S_MAX
            )
        except (CallRefused, CallUnknown) as failed:
            status, expected, error = Status.UNREACHABLE, 0, str(failed)
        self.tell(Applied(apply.target, apply.payload_id, frame.index, frame.digest, status, expected, error))

    async def _stand_in(self, identifier: bytes, index: int) -> None:
        slot = self._slots[Target.EXECUTION]
        try:
            frame, made = await self.network.call(
                self.process, slot, "stand_in", identifier, index, timeout_s=CLIENT_S_MAX
            )
        except (CallRefused, CallUnknown) as error:
            self.tell(StoodIn(identifier, index, error=str(error)))
        else:
            self.tell(StoodIn(identifier, index, frame, made))

    def _watch_heads(self) -> None:
        for target in Target:
            self.process.spawn(self._look_at(target))

    async def _look_at(self, target: Target) -> None:
        try:
            block: Block = await self.network.call(self.process, self._slots[target], "latest", timeout_s=CLIENT_S_MAX)
        except (CallRefused, CallUnknown) as error:
            self.tell(HeadSeen(target, failure=str(error)))
        else:
            self.tell(HeadSeen(target, block.timestamp))

    def _new_builder_link(self) -> Link:
        link: Link | None = None

        def changed(up: bool) -> None:
            if not self._resending and link is not None and link is self._builder_link:
                self.tell(Linked(Target.BUILDER, up))

        link = Link(self.network, self.process, self._slots[Target.BUILDER], self._on_builder_frame, changed)
        return link

    def _on_builder_frame(self, frame: FlashblockFrame) -> None:
        self.tell(FlashblockArrived(frame, opened(frame.body)))

    async def _ask_again(self) -> None:
        if self._resending:
            return
        self._resending = True
        old, self._builder_link = self._builder_link, self._new_builder_link()
        if old is not None:
            old.close()
        await self.process.sleep(RESEND_CONNECT_S_MAX)
        self._resending = False
        if not self._builder_link.connected:
            self.tell(Linked(Target.BUILDER, False))

    # Engine API

    async def forkchoice(self, head: bytes, attributes: PayloadAttributes | None = None) -> tuple[str, bytes | None]:
        """engine_forkchoiceUpdated."""
        identifier = b"" if attributes is None else payload_id(head, attributes)
        decisions = self.tell(Forkchoice(next(self._tokens), head, attributes, identifier))
        if any(decision.to_builder for decision in decisions if isinstance(decision, Forward)):
            if attributes is not None:
                self._updates[identifier] = (head, attributes)
                while len(self._updates) > UPDATES_KEPT_MAX:
                    del self._updates[next(iter(self._updates))]
            self.process.spawn(self._forkchoice_to_builder(head, attributes, identifier))
        answer: tuple[str, bytes | None] = await self._to_l2("forkchoice", head, attributes)
        if attributes is not None:
            self.tell(PayloadIdAnswered(Target.EXECUTION, identifier, answer[1]))
        return answer

    async def _forkchoice_to_builder(
        self, head: bytes, attributes: PayloadAttributes | None, identifier: bytes
    ) -> None:
        answer = await self._to_builder_in_turn("forkchoice", head, attributes)
        if identifier and answer is not None:
            self.tell(PayloadIdAnswered(Target.BUILDER, identifier, answer[1]))

    async def new_payload(self, envelope: Envelope) -> str:
        """engine_newPayload."""
        self.process.spawn(self._to_builder_in_turn("new_payload", envelope))
        answer: str = await self._to_l2("new_payload", envelope)
        return answer

    async def get_payload(self, identifier: bytes) -> Envelope:
        """engine_getPayload."""
        if not self.keeps_prefix:
            envelope: Envelope = await self._to_l2("get_payload", identifier)
            return envelope
        token, future = next(self._tokens), Future(self.process)
        self._asked[token] = future
        self.process.after(GET_PAYLOAD_S_MAX, future.fail, CallUnknown("no client answered getPayload in time"))
        try:
            self.tell(PayloadAsked(token, identifier))
            answer: Envelope = await future
            return answer
        finally:
            self._asked.pop(token, None)
            self._l2_blocks.pop(token, None)

    async def _ask_for_blocks(self, asked: AskForBlocks) -> None:
        l2: Offer | None = None
        flashblocks: tuple[Any, ...] = ()
        slot = self._slots[Target.EXECUTION]
        try:
            own: Envelope = await self.network.call(
                self.process, slot, "get_payload", asked.client_id, timeout_s=CLIENT_S_MAX
            )
            self._l2_blocks[asked.token] = own
            l2 = Offer(own.payload.gas_used)
            if asked.flashblocks:
                flashblocks = await self.network.call(
                    self.process, slot, "payload_as_flashblocks", asked.client_id, timeout_s=CLIENT_S_MAX
                )
        except CallRefused as error:
            self._fail(asked.token, str(error))
            return
        except CallUnknown:
            pass
        self.tell(BlocksOffered(asked.token, asked.client_id, l2, None, flashblocks))

    async def _to_l2(self, method: str, *arguments: Any) -> Any:
        try:
            answer = await self.network.call(
                self.process, self._slots[Target.EXECUTION], method, *arguments, timeout_s=CLIENT_S_MAX
            )
        except CallUnknown as error:
            self.tell(Called(Target.EXECUTION, f"{method}: {error}"))
            raise CallRefused(f"{method}: {error}") from None
        self.tell(Called(Target.EXECUTION))
        return answer

    async def _to_builder_in_turn(self, method: str, *arguments: Any) -> Any:
        if self._builder_turn.waiting >= BUILDER_CALLS_WAITING_MAX:
            self.tell(Called(Target.BUILDER, "calls are waiting already"))
            return None
        async with self._builder_turn:
            failure, answer = await self._call_builder(method, *arguments)
        self.tell(Called(Target.BUILDER, failure))
        return answer

    async def _call_builder(self, method: str, *arguments: Any) -> tuple[str, Any]:
        try:
            slot = self._slots[Target.BUILDER]
            return "", await self.network.call(self.process, slot, method, *arguments, timeout_s=CLIENT_S_MAX)
        except (CallRefused, CallUnknown) as error:
            return f"{method}: {error}", None

    def _resolve(self, token: int, envelope: Envelope | None) -> None:
        future = self._asked.get(token)
        if future is not None and envelope is not None:
            future.set(envelope)
        elif future is not None:
            future.fail(CallRefused("the execution client has no payload"))

    def _fail(self, token: int, text: str) -> None:
        future = self._asked.get(token)
        if future is not None:
            future.fail(CallRefused(text))

    # The conductor

    def on_peer(self, peer: Connection, start: object, port: str) -> None:
        """The conductor connected."""
        self._conductors.append(peer)
        peer.to_client(HealthFrame(self.core.health.status, self.core.health.detail))

    def on_peer_lost(self, peer: Connection) -> None:
        """A conductor's link is gone."""
        if peer in self._conductors:
            self._conductors.remove(peer)
        if not self._conductors:
            self.tell(ConductorLost())

    def on_peer_frame(self, peer: Connection, frame: Frame) -> None:
        """What the conductor says."""
        match frame:
            case CommittedFrame(committed):
                self.tell(Committed(committed))
            case RefusedFrame():
                self.tell(Refused(frame.payload_id, frame.index, frame.reason))
            case SealedFrame():
                self.tell(Sealed(frame.number))
            case LeadershipFrame():
                self.tell(Leadership(frame.epoch, frame.leading))

    def _to_conductor(self, frame: Frame) -> None:
        for peer in self._conductors:
            peer.to_client(frame)

    # Others ask

    def healthz(self) -> int:
        """GET /healthz."""
        return self.core.health.status

    def latest(self) -> Any:
        """eth_getBlockByNumber, passed on to the execution client."""
        return self._to_l2_quietly("latest")

    async def _to_l2_quietly(self, method: str) -> Any:
        return await self.network.call(self.process, self._slots[Target.EXECUTION], method, timeout_s=CLIENT_S_MAX)

    def check(self) -> None:
        """The core's invariants."""
        self.core.check()
