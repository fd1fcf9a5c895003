"""Stories about the pending state machine: made-up flashblocks, and a machine whose executor answers at once."""

from dataclasses import dataclass, field
from hashlib import sha256

from flashblocks.preconf.facts import (
    Appended,
    Arrival,
    BlockRef,
    CanonicalBlock,
    Decision,
    Dropped,
    Execute,
    Invalidated,
)
from flashblocks.preconf.pending import PendingMachine


def name(text: str) -> bytes:
    return sha256(text.encode()).digest()


HEAD = BlockRef(100, name("100"))


def flashblock(
    number: int, index: int, *, parent: bytes, payload: str = "", epoch: int = 7, body: str = "", txs: int = 1
) -> Arrival:
    """A flashblock of a made-up chain: its block hash and transactions follow from height, index and body."""
    key = f"{number}.{index}{payload}{body}"
    return Arrival(
        epoch=epoch,
        number=number,
        index=index,
        payload_id=name(f"{number}{payload}")[:8],
        parent_hash=parent,
        block_hash=name(key),
        digest=name("digest" + key),
        transactions=tuple(name(f"tx{key}{position}") for position in range(txs)),
    )


def block_of(count: int, number: int = 101, parent: bytes = HEAD.hash, **variant: object) -> list[Arrival]:
    return [flashblock(number, index, parent=parent, **variant) for index in range(count)]  # type: ignore[arg-type]


@dataclass
class Story:
    """Runs a machine with an executor that answers at once, and writes down what was decided."""

    machine: PendingMachine = field(default_factory=lambda: PendingMachine(HEAD))
    now: float = 1000.0
    log: list[Decision] = field(default_factory=list)
    invalid: set[bytes] = field(default_factory=set)
    lost_place: set[bytes] = field(default_factory=set)

    def carry_out(self, decisions: list[Decision]) -> list[Decision]:
        seen = list(decisions)
        queue = list(decisions)
        while queue:
            decision = queue.pop(0)
            if isinstance(decision, Execute):
                arrival = decision.arrival
                outcome = "VALID"
                if arrival.digest in self.invalid:
                    outcome = "INVALID"
                if arrival.digest in self.lost_place:
                    self.lost_place.discard(arrival.digest)
                    outcome = "GAP"
                more = self.machine.executed(self.now, arrival, outcome)  # type: ignore[arg-type]
                seen += more
                queue += more
            self.machine.check()
        self.log += seen
        return seen

    def stream(self, *arrivals: Arrival) -> list[Decision]:
        seen: list[Decision] = []
        for arrival in arrivals:
            seen += self.carry_out(self.machine.streamed(self.now, arrival))
        return seen

    def seal_elsewhere(self, number: int, parent: bytes, transactions: tuple[bytes, ...], text: str) -> list[Decision]:
        block = CanonicalBlock(number, name(text), parent, transactions)
        return self.carry_out(self.machine.canonical(self.now, block))

    def wait(self, seconds: float) -> list[Decision]:
        self.now += seconds
        return self.carry_out(self.machine.tick(self.now))

    @property
    def appended(self) -> list[tuple[int, int]]:
        return [(d.arrival.number, d.arrival.index) for d in self.log if isinstance(d, Appended)]

    @property
    def dropped(self) -> list[str]:
        return [d.reason for d in self.log if isinstance(d, Dropped)]

    @property
    def invalidated(self) -> list[Invalidated]:
        return [d for d in self.log if isinstance(d, Invalidated)]
