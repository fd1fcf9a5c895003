"""The block being put together: its flashblocks in order, and how far each has come.

A flashblock arrives, is judged, is offered to the conductor, and is promised: committed by the ledger or, where no
commit is required, streamed.  The promised ones are always a prefix.  The ledger is the authority: a committed
flashblock replaces whatever stood at its index, and what followed on the replaced one is dropped with it.
"""

import enum
from dataclasses import dataclass, field

from flashblocks.rollup_boost.selection import ExecutionMode
from flashblocks.wire.assembly import assemble
from flashblocks.wire.engine import Envelope, PayloadAttributes
from flashblocks.wire.flashblock import Flashblock, decode_body
from flashblocks.wire.frames import FlashblockFrame
from flashblocks.wire.hexadecimal import WireError

HELD_FRAMES_MAX = 64
APPLY_RETRY_S_FIRST = 0.05
APPLY_RETRY_S_MAX = 0.4
APPLY_FAILURES_MAX = 12


class Progress(enum.IntEnum):
    """How far a flashblock has come."""

    ARRIVED = 0
    JUDGED = 1
    OFFERED = 2
    PROMISED = 3


class Maker(enum.Enum):
    """Who made a flashblock: the builder of this group, its execution client, or another group's leader."""

    BUILDER = "builder"
    EXECUTION = "l2"
    ELSEWHERE = "elsewhere"


@dataclass(slots=True)
class Piece:
    """One flashblock of the block."""

    frame: FlashblockFrame
    progress: Progress
    maker: Maker
    _decoded: Flashblock | None = None

    @property
    def own(self) -> bool:
        """Whether the builder of this group made it."""
        return self.maker is Maker.BUILDER

    @property
    def flashblock(self) -> Flashblock:
        """The decoded body (followers decode only what they are asked for)."""
        if self._decoded is None:
            self._decoded = decode_body(self.frame.body)
        return self._decoded


@dataclass(slots=True)
class Cursor:
    """How far one of our execution clients has executed the block, and whether it is busy with the next flashblock."""

    next_index: int = 0
    busy_with: bytes = b""
    failures: int = 0
    not_before_s: float = 0.0
    given_up: bool = False

    def retry(self, now: float, *, at_once: bool = False) -> None:
        """The client could not execute it now: again after a growing pause, and not for ever."""
        pause_s = min(APPLY_RETRY_S_MAX, APPLY_RETRY_S_FIRST * 2.0**self.failures)
        self.failures += 1
        self.not_before_s = now if at_once else now + pause_s
        self.given_up = self.failures > APPLY_FAILURES_MAX

    def hope(self) -> None:
        """Something has changed for the better: try again at once."""
        self.failures, self.not_before_s, self.given_up = 0, 0.0, False


@dataclass(slots=True)
class Block:
    """One payload id: opened by a forkchoice update here, by a committed flashblock from elsewhere, or by both."""

    payload_id: bytes
    parent_hash: bytes
    attributes: PayloadAttributes | None = None
    mode: ExecutionMode = ExecutionMode.ENABLED
    opened_s: float = 0.0
    grown_s: float = 0.0  # when the last flashblock came
    execution_asked: bool = False  # its payload is begun
    stands_in: bool = False  # the execution client made the last flashblock, in the builder's place
    stand_in_asked: int = -1  # the index it is asked for
    stand_in_failures: int = 0
    stand_in_not_before_s: float = 0.0
    builder_asked: bool = False
    builder_confirmed: bool = False
    builder_returned: bool = False
    asked: bool = False
    closed_by_l2: bool = False
    distrusted: str = ""
    offers_paused: bool = False
    resend_asked_at: int = -1
    done: bool = False
    pieces: list[Piece] = field(default_factory=list)
    held: dict[int, tuple[FlashblockFrame, Flashblock]] = field(default_factory=dict)
    execution: Cursor = field(default_factory=Cursor)
    builder: Cursor = field(default_factory=Cursor)

    @property
    def number(self) -> int | None:
        """The block's number, known from its first flashblock on."""
        return self.pieces[0].frame.number if self.pieces else None

    @property
    def promised(self) -> int:
        """How many flashblocks are promised: indices 0 … promised - 1."""
        for index, piece in enumerate(self.pieces):
            if piece.progress is not Progress.PROMISED:
                return index
        return len(self.pieces)

    @property
    def outstanding(self) -> bool:
        """True while an offer has not been answered."""
        return any(piece.progress is Progress.OFFERED for piece in self.pieces)

    def arrive(self, frame: FlashblockFrame, flashblock: Flashblock, now: float) -> None:
        """Append the builder's next flashblock, which the caller has inspected."""
        assert frame.index == len(self.pieces)
        self.pieces.append(Piece(frame, Progress.ARRIVED, Maker.BUILDER, _decoded=flashblock))
        self.grown_s, self.stands_in = now, False
        if self.builder.next_index == frame.index:
            self.builder.next_index += 1

    def close_with(self, flashblocks: tuple[tuple[FlashblockFrame, Flashblock], ...]) -> None:
        """Take the execution client's own block, as flashblocks: it made them, so they are judged."""
        self.drop_from(0)
        self.closed_by_l2 = True
        for frame, flashblock in flashblocks:
            self.pieces.append(Piece(frame, Progress.JUDGED, Maker.EXECUTION, _decoded=flashblock))

    def stand_in(self, frame: FlashblockFrame, flashblock: Flashblock, now: float) -> None:
        """Append the flashblock that the execution client made in the builder's place: it is judged."""
        assert frame.index == len(self.pieces)
        self.pieces.append(Piece(frame, Progress.JUDGED, Maker.EXECUTION, _decoded=flashblock))
        self.held.clear()
        self.grown_s, self.stands_in = now, True
        if self.execution.next_index == frame.index:
            self.execution.next_index += 1

    def commit(self, frame: FlashblockFrame, now: float) -> bool:
        """Take in a committed flashblock; False when those before it are missing and it cannot be placed."""
        index = frame.index
        if index > len(self.pieces):
            return False
        if index < len(self.pieces) and self.pieces[index].frame.digest == frame.digest:
            piece = self.pieces[index]
            piece.frame, piece.progress = frame, Progress.PROMISED
            return True
        self.drop_from(index)
        self.pieces.append(Piece(frame, Progress.PROMISED, Maker.ELSEWHERE))
        self.grown_s, self.stands_in = now, False
        return True

    def drop_from(self, index: int) -> None:
        """Forget the flashblocks from this index on; our clients must execute what comes instead."""
        del self.pieces[index:]
        self.held.clear()
        for cursor in (self.execution, self.builder):
            cursor.next_index = min(cursor.next_index, index)
            cursor.hope()

    def decode(self) -> None:
        """Decode all bodies now, so that the payload is at hand when it is asked for."""
        try:
            for piece in self.pieces:
                _ = piece.flashblock
        except WireError:
            pass  # what a leader had committed is no flashblock: the clients will say so

    def withdraw(self) -> None:
        """What was on offer is merely judged again: the answer will not come, or was a refusal."""
        for piece in self.pieces:
            if piece.progress is Progress.OFFERED:
                piece.progress = Progress.JUDGED

    def envelope(self) -> Envelope:
        """The block that the promised flashblocks make; raises WireError when nothing was promised."""
        return assemble([piece.flashblock for piece in self.pieces[: self.promised]])

    def check(self) -> None:
        """Assert what must hold between any two steps."""
        assert [piece.frame.index for piece in self.pieces] == list(range(len(self.pieces)))
        order = [piece.progress for piece in self.pieces]
        assert order == sorted(order, reverse=True), "progress never grows along the block"
        assert self.execution.next_index <= len(self.pieces)
        assert self.builder.next_index <= len(self.pieces)
        assert all(index >= len(self.pieces) for index in self.held)
        assert len(self.held) <= HELD_FRAMES_MAX
