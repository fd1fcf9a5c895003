"""What rollup-boost's core is told, and what it decides: the types of its one door.

``payload_id`` is always our own (computed from head and attributes) where a block is meant; ``token`` names a waiting
caller of the shell.  Times are seconds.
"""

import enum
from dataclasses import dataclass

from flashblocks.rollup_boost.health import Health
from flashblocks.rollup_boost.selection import ExecutionMode, Offer, Source
from flashblocks.wire.engine import Envelope, PayloadAttributes
from flashblocks.wire.flashblock import Flashblock
from flashblocks.wire.frames import FlashblockFrame


class Target(enum.Enum):
    """The two execution clients behind us."""

    EXECUTION = "l2"
    BUILDER = "builder"


class Status(enum.Enum):
    """What an execution client said to a flashblock; UNREACHABLE when it said nothing."""

    VALID = "VALID"
    DUPLICATE = "DUPLICATE"
    INVALID = "INVALID"
    GAP = "GAP"
    UNKNOWN_PARENT = "UNKNOWN_PARENT"
    UNREACHABLE = "UNREACHABLE"


@dataclass(frozen=True, slots=True)
class Forkchoice:
    """engine_forkchoiceUpdated arrived; ``payload_id`` is ours for these attributes, empty without any."""

    token: int
    head: bytes
    attributes: PayloadAttributes | None
    payload_id: bytes


@dataclass(frozen=True, slots=True)
class PayloadIdAnswered:
    """A client answered a forkchoice update with attributes by its own id for the payload, or by none."""

    target: Target
    payload_id: bytes
    client_id: bytes | None


@dataclass(frozen=True, slots=True)
class Called:
    """A forkchoice update or newPayload to a client ended; empty ``failure`` means it succeeded."""

    target: Target
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Linked:
    """A client's lifeline opened or closed."""

    target: Target
    up: bool


@dataclass(frozen=True, slots=True)
class HeadSeen:
    """The periodic look at a client's head; empty ``failure`` means it answered."""

    target: Target
    timestamp_s: int = 0
    failure: str = ""


@dataclass(frozen=True, slots=True)
class FlashblockArrived:
    """The builder sent a flashblock."""

    frame: FlashblockFrame
    flashblock: Flashblock


@dataclass(frozen=True, slots=True)
class GarbageArrived:
    """The builder sent something that is not a flashblock."""

    detail: str


@dataclass(frozen=True, slots=True)
class Applied:
    """A client's answer to ``Apply``."""

    target: Target
    payload_id: bytes
    index: int
    digest: bytes
    status: Status
    expected_index: int = 0
    error: str = ""


@dataclass(frozen=True, slots=True)
class StoodIn:
    """The execution client's answer to ``StandIn``; ``frame`` is None where it could not, and ``error`` says why."""

    payload_id: bytes
    index: int
    frame: FlashblockFrame | None = None
    flashblock: Flashblock | None = None
    error: str = ""


@dataclass(frozen=True, slots=True)
class Committed:
    """The ledger holds this flashblock."""

    frame: FlashblockFrame


@dataclass(frozen=True, slots=True)
class Refused:
    """The ledger did not take an offered flashblock."""

    payload_id: bytes
    index: int
    reason: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """The block of this number is sealed."""

    number: int


@dataclass(frozen=True, slots=True)
class Leadership:
    """The conductor says whether this group leads; also sent whenever its link comes up."""

    epoch: int
    leading: bool


@dataclass(frozen=True, slots=True)
class ConductorLost:
    """The conductor's link closed."""


@dataclass(frozen=True, slots=True)
class PayloadAsked:
    """engine_getPayload arrived, with the id that the execution client gave out."""

    token: int
    client_id: bytes


@dataclass(frozen=True, slots=True)
class BlocksOffered:
    """The answer to ``AskForBlocks``: complete blocks of the clients, None where there is none.

    ``l2_flashblocks`` is the execution client's block as flashblocks, empty where it cannot give them.
    """

    token: int
    client_id: bytes
    l2: Offer | None
    builder: Offer | None
    l2_flashblocks: tuple[tuple[FlashblockFrame, Flashblock], ...] = ()


@dataclass(frozen=True, slots=True)
class ModeSet:
    """The operator changed the execution mode."""

    mode: ExecutionMode


@dataclass(frozen=True, slots=True)
class Tick:
    """The time asked for by ``WakeAt`` has come."""


Fact = (
    Forkchoice
    | PayloadIdAnswered
    | Called
    | Linked
    | HeadSeen
    | FlashblockArrived
    | GarbageArrived
    | Applied
    | StoodIn
    | Committed
    | Refused
    | Sealed
    | Leadership
    | ConductorLost
    | PayloadAsked
    | BlocksOffered
    | ModeSet
    | Tick
)


@dataclass(frozen=True, slots=True)
class Forward:
    """Send the forkchoice update to the execution client, and to the builder if so said."""

    token: int
    to_builder: bool


@dataclass(frozen=True, slots=True)
class Apply:
    """Have a client execute a flashblock and answer with ``Applied``."""

    target: Target
    payload_id: bytes
    frame: FlashblockFrame


@dataclass(frozen=True, slots=True)
class StandIn:
    """Have the execution client make this flashblock of the block, from its pool, and answer with ``StoodIn``."""

    payload_id: bytes
    index: int


@dataclass(frozen=True, slots=True)
class Offering:
    """Hand a judged flashblock to the conductor for commit."""

    frame: FlashblockFrame


@dataclass(frozen=True, slots=True)
class Stream:
    """Give a promised flashblock to the public subscribers."""

    frame: FlashblockFrame


@dataclass(frozen=True, slots=True)
class RequestResend:
    """Connect to the builder anew: it greets with the open block's flashblocks, the missing one among them."""


@dataclass(frozen=True, slots=True)
class ResumeBuilder:
    """Send the builder this block's forkchoice update once more: it came back and stands where the block stands."""

    payload_id: bytes


@dataclass(frozen=True, slots=True)
class AskForBlocks:
    """Ask the execution client (and the builder) for their own blocks and answer with ``BlocksOffered``.

    ``flashblocks``: ask for the execution client's block as flashblocks too.
    """

    token: int
    client_id: bytes
    builder_id: bytes | None
    flashblocks: bool = False


@dataclass(frozen=True, slots=True)
class AnswerEnvelope:
    """Answer getPayload with the block of the promised flashblocks."""

    token: int
    envelope: Envelope
    flashblocks: int


@dataclass(frozen=True, slots=True)
class AnswerFrom:
    """Answer getPayload with the block got from this client; None: there is none."""

    token: int
    source: Source | None


@dataclass(frozen=True, slots=True)
class EndBuilderJob:
    """Tell the builder, by getPayload, that its block is closed."""

    builder_id: bytes


@dataclass(frozen=True, slots=True)
class SetHealth:
    """The health changed."""

    health: Health


@dataclass(frozen=True, slots=True)
class Count:
    """Count an event under the metric's name; ``detail`` is for the log."""

    metric: str
    reason: str = ""
    detail: str = ""
    amount: int = 1


@dataclass(frozen=True, slots=True)
class WakeAt:
    """Call ``step`` with a Tick at this time; replaces an earlier request."""

    at_s: float


Decision = (
    Forward
    | Apply
    | StandIn
    | Offering
    | Stream
    | RequestResend
    | ResumeBuilder
    | AskForBlocks
    | AnswerEnvelope
    | AnswerFrom
    | EndBuilderJob
    | SetHealth
    | Count
    | WakeAt
)
