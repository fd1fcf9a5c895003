"""The core with a clock and a memory, and words for what happens to it."""

from types import SimpleNamespace
from typing import Any, TypeVar

from flashblocks.rollup_boost.core import Core
from flashblocks.rollup_boost.facts import (
    Applied,
    Committed,
    Count,
    Decision,
    Fact,
    FlashblockArrived,
    Forkchoice,
    Leadership,
    PayloadAsked,
    Status,
    Target,
)
from flashblocks.rollup_boost.rules import Rules
from flashblocks.wire.assembly import assemble
from flashblocks.wire.payload_id import payload_id

D = TypeVar("D", bound=Decision)
T0 = 1_700_000_000.0
EL, BUILDER = Target.EXECUTION, Target.BUILDER


class Rig:
    """The core with a clock and a memory of everything it decided."""

    def __init__(self, samples: SimpleNamespace, **rules: Any) -> None:
        self.core, self.samples, self.now = Core(Rules(**rules)), samples, T0
        self.log: list[Decision] = []

    def tell(self, *facts: Fact, after: float = 0.0) -> list[Decision]:
        self.now += after
        decided: list[Decision] = []
        for fact in facts:
            decided += self.core.step(fact, self.now)
            self.core.check()
        self.log += decided
        return decided

    def open(self, leading: bool = True, **changes: Any) -> bytes:
        if leading:
            self.tell(Leadership(1, True))
        attributes = self.samples.attributes(**changes)
        identifier = payload_id(self.samples.head, attributes)
        self.tell(Forkchoice(1, self.samples.head, attributes, identifier))
        return identifier

    def arrive(self, index: int, **how: Any) -> list[Decision]:
        made = self.samples.flashblock(index, **how)
        return self.tell(FlashblockArrived(self.samples.frame(made), made))

    def judge(self, index: int, status: Status = Status.VALID, salt: str = "", **more: Any) -> list[Decision]:
        frame = self.frame(index, salt)
        return self.tell(Applied(EL, self.samples.payload_id, index, frame.digest, status, **more))

    def commit(self, index: int, salt: str = "", epoch: int = 1) -> list[Decision]:
        return self.tell(Committed(self.frame(index, salt, epoch)))

    def frame(self, index: int, salt: str = "", epoch: int = 0) -> Any:
        return self.samples.frame(self.samples.flashblock(index, salt), epoch)

    def through(self, *indices: int) -> None:
        for index in indices:
            self.arrive(index)
            self.judge(index)
            self.commit(index)

    def ask(self, token: int = 9, **wait: float) -> list[Decision]:
        return self.tell(PayloadAsked(token, self.samples.payload_id), **wait)

    def envelope(self, *salts: str) -> Any:
        return assemble([self.samples.flashblock(index, salt) for index, salt in enumerate(salts)])


def of(decisions: list[Decision], kind: type[D]) -> list[D]:
    return [decision for decision in decisions if isinstance(decision, kind)]


def reasons(decisions: list[Decision]) -> list[tuple[str, str]]:
    return [(count.metric, count.reason) for count in of(decisions, Count) if count.metric != "messages_processed"]
