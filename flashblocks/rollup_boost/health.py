"""What /healthz answers: 200 healthy, 206 blocks without a builder, 503 no blocks.

A peer is known by three signs: its lifeline (closed at once when the process dies), the outcome of the last call, and
the age of its head.  The builder has a fourth: a flashblock that was refused.  It is forgiven after a whole later block
without offence – not by the next good flashblock, or a builder that lies in every block would look healthy in between –
or after a while, for a group that was relieved of the lead is not asked for blocks in which to prove itself.
"""

from dataclasses import dataclass

from flashblocks.rollup_boost.selection import ExecutionMode

LOOKS_MISSED_MAX = 2
OFFENCE_REMEMBERED_S = 30.0

HEALTHY, PARTIAL, UNAVAILABLE = 200, 206, 503
TEXTS = {HEALTHY: "OK", PARTIAL: "Partial Content", UNAVAILABLE: "Service Unavailable"}


@dataclass(frozen=True, slots=True)
class Health:
    """A status of /healthz and the reason for it."""

    status: int
    detail: str


@dataclass(slots=True)
class PeerHealth:
    """What is known of the execution client or of the builder; empty texts mean nothing is wrong."""

    linked: bool | None = None
    failure: str = ""
    stale: str = ""
    looks_missed: int = 0
    offence: str = ""
    offence_block: bytes = b""
    offence_until_s: float = 0.0
    seen_fresh: bool = False

    def link(self, up: bool) -> None:
        """Its lifeline opened or closed; a new process starts with a clean record of calls."""
        self.linked = up
        if up:
            self.failure = ""

    def called(self, failure: str = "") -> None:
        """A call to it ended: with an empty text for success, else with what went wrong."""
        self.failure = failure

    def looked(self, failure: str = "") -> None:
        """A periodic look at it ended; a single one that failed says little on a busy machine."""
        self.looks_missed = self.looks_missed + 1 if failure else 0
        if not failure or self.looks_missed >= LOOKS_MISSED_MAX:
            self.failure = failure

    def head(self, age_s: float, age_s_max: float) -> None:
        """Its head is this old.  A chain that has not begun to move (an old genesis) is not stale yet."""
        if age_s <= age_s_max:
            self.seen_fresh, self.stale = True, ""
        elif self.seen_fresh and age_s_max > 0:
            self.stale = f"head is {age_s:.0f} s old"

    def accuse(self, payload_id: bytes, offence: str, now: float) -> None:
        """It did something wrong in this block; the first offence of a block is kept."""
        self.offence_until_s = now + OFFENCE_REMEMBERED_S
        if self.offence_block != payload_id or not self.offence:
            self.offence, self.offence_block = offence, payload_id

    def behaved(self, payload_id: bytes) -> None:
        """It did well in this whole block: forgives what happened in another."""
        if payload_id != self.offence_block:
            self._forgive()

    def remember(self, now: float) -> float | None:
        """Forget an old offence; when to look again while there is one."""
        if self.offence and now >= self.offence_until_s:
            self._forgive()
        return self.offence_until_s if self.offence else None

    def _forgive(self) -> None:
        self.offence, self.offence_block = "", b""

    @property
    def fault(self) -> str:
        """What is wrong with it, or an empty text.  A lifeline that never was (a foreign client) says nothing."""
        if self.linked is False:
            return "connection lost"
        return self.failure or self.offence or self.stale


def judge_health(mode: ExecutionMode, execution: PeerHealth, builder: PeerHealth) -> Health:
    """The table: the execution client decides about 503, the builder, if it is used at all, about 206."""
    if execution.fault:
        return Health(UNAVAILABLE, f"execution client: {execution.fault}")
    if mode is ExecutionMode.DISABLED or not builder.fault:
        return Health(HEALTHY, TEXTS[HEALTHY])
    return Health(PARTIAL, f"builder: {builder.fault}")
