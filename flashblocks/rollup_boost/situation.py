"""What all parts of the core look at and write to: the rules in force, the peers, the blocks, the decisions so far."""

from dataclasses import dataclass, field

from flashblocks.rollup_boost.assembly import Block
from flashblocks.rollup_boost.blocks import Blocks
from flashblocks.rollup_boost.facts import Count, Decision, Target
from flashblocks.rollup_boost.health import PeerHealth
from flashblocks.rollup_boost.rules import Rules
from flashblocks.rollup_boost.selection import ExecutionMode, streams


@dataclass(slots=True)
class Situation:
    """The core's state outside its parts; ``now`` is the time of the fact being dealt with (seconds)."""

    rules: Rules
    mode: ExecutionMode
    execution: PeerHealth = field(default_factory=PeerHealth)
    builder: PeerHealth = field(default_factory=PeerHealth)
    blocks: Blocks = field(default_factory=Blocks)
    leading: bool = False
    told: bool = False  # the conductor is there and has said whether we lead
    untold_since_s: float | None = None  # since when it is not there: since the first fact, or since its link closed
    epoch: int = 0
    now: float = 0.0
    out: list[Decision] = field(default_factory=list)

    def peer(self, target: Target) -> PeerHealth:
        """What is known of this client."""
        return self.execution if target is Target.EXECUTION else self.builder

    def count(self, metric: str, reason: str = "", detail: str = "") -> None:
        """Count an event."""
        self.out.append(Count(metric, reason, detail))

    def accuse(self, block: Block | None, reason: str, detail: str) -> None:
        """The builder did something wrong: count it, show it, and end its part in this block."""
        self.count("extend_payload_errors", reason, detail)
        self.builder.accuse(block.payload_id if block else b"", f"{reason}: {detail}", self.now)
        if block is not None and reason != "garbage":
            block.distrusted = reason
            block.held.clear()

    def may_offer(self, block: Block) -> bool:
        """Whether flashblocks of this block may be promised to anybody."""
        if not (streams(self.mode) and streams(block.mode)) or block.done:
            return False
        return not self.rules.commit_required or (self.leading and not block.offers_paused)
