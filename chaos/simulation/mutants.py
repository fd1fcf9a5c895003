"""Systems that lack one of their defences: a checker that lets one of them pass is broken.

The defences overlap – what a publisher would let through, the ledger refuses – so a mutant lacks all that stands
against one mistake, as a system would that was designed without the idea.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from chaos.checker import (
    EQUIVOCATION,
    FORK,
    LOST_FLASHBLOCK,
    LOST_TRANSACTION,
    REORDERED,
    STALE_EPOCH,
)
from chaos.simulation import schedule as faults
from chaos.simulation.boost import RollupBoost
from chaos.simulation.builder import Builder
from chaos.simulation.conductor import Conductor
from chaos.simulation.consensus import Variant
from chaos.simulation.judge import STALLED
from chaos.simulation.network import CallRefused
from chaos.simulation.op_node import OpNode
from chaos.simulation.world import Options, Parts
from flashblocks.conductor.publishing import Publisher
from flashblocks.proxy.ordering import Arrival, Ordering
from flashblocks.wire.engine import Envelope, PayloadAttributes, envelope_to_bytes
from flashblocks.wire.frames import FlashblockFrame, LeadershipFrame
from flashblocks.wire.payload_id import payload_id
from raft.commands import Accepted, Append, Seal
from raft.commands import SealBlock as SealWhole
from raft.ledger import Ledger, OpenBlock, Outcome


class Mutant(msgspec.Struct, frozen=True):
    """What is left out; the rules of which one must notice, at `where`; the faults that make it matter."""

    text: str
    rules: tuple[str, ...]
    parts: Callable[[], Parts]
    options: Options
    where: str = ""


# The epoch fence


class _UnfencedLedger(Ledger):
    def _fence(self, command: Append | Seal | SealWhole) -> Outcome | None:
        return None

    def check(self) -> None:
        """Its epochs need not be in order."""


class _UnfencedPublisher(Publisher):
    def on_claimed(self, epoch: int, node: str, leading: bool) -> bool:
        return super().on_claimed(epoch, node, leading) if node == self._node else False

    def on_leadership_lost(self) -> None:
        """It goes on in the epoch it had."""


class _Unfenced(Parts):
    variant = Variant(forwards=True, ledger=_UnfencedLedger)
    publisher = _UnfencedPublisher


# Publish before commit


class _HastyConductor(Conductor):
    def _offer(self, frame: FlashblockFrame) -> None:
        epoch = self.publisher.epoch
        if epoch is not None:
            self._publish(msgspec.structs.replace(frame, epoch=epoch))
        super()._offer(frame)


class _Hasty(Parts):
    conductor = _HastyConductor


# Fallback and vote


class _SlowFallback(Parts):
    variant = Variant(fallback_s=30.0)


class _ForgetsVote(Parts):
    variant = Variant(forgets_vote=True)


# A follower that emits


class _EmittingConductor(Conductor):
    """It led once, and does not hear that it does not any more."""

    _last_epoch = 0

    def _tell_leadership(self) -> None:
        self._last_epoch = self.publisher.epoch or self._last_epoch
        if self._last_epoch:
            self._to_boost(LeadershipFrame(self._last_epoch, True))
        else:
            super()._tell_leadership()

    def _offer(self, frame: FlashblockFrame) -> None:
        if self.publisher.epoch is None and self._last_epoch:
            self._publish(msgspec.structs.replace(frame, epoch=self._last_epoch))
        else:
            super()._offer(frame)


class _Emitting(Parts):
    conductor = _EmittingConductor


# Resume at index 0


class _ForgivingLedger(Ledger):
    """It lets a later leader begin the open block anew."""

    def _extend(self, block: OpenBlock, command: Append) -> Outcome:
        if command.index < len(block.entries) and block.entries[command.index].digest != command.digest:
            kept = block.entries[: command.index]
            shorter = msgspec.structs.replace(block, entries=kept) if kept else None
            self._view = msgspec.structs.replace(self._view, open=shorter)
            return self._append(command)
        return super()._extend(block, command)


class _ForgetfulBoost(RollupBoost):
    async def forkchoice(self, head: bytes, attributes: PayloadAttributes | None = None) -> tuple[str, bytes | None]:
        if attributes is not None:
            block = self.core.blocks.get(payload_id(head, attributes))
            if block is not None and block.attributes is None:
                block.drop_from(0)
        return await super().forkchoice(head, attributes)


class _ForgetfulBuilder(Builder):
    resumes = False


class _ForgetfulOpNode(OpNode):
    resumes = False


class _BeginsAnew(Parts):
    variant = Variant(ledger=_ForgivingLedger)
    boost = _ForgetfulBoost
    builder = _ForgetfulBuilder
    op_node = _ForgetfulOpNode


# Seal without the committed prefix


class _CarelessLedger(Ledger):
    def _seal_block(self, command: SealWhole) -> Outcome:
        if self._view.open is not None and self._view.open.number == command.number:
            self._view = msgspec.structs.replace(self._view, open=None)
        return super()._seal_block(command)


class _CarelessBoost(RollupBoost):
    keeps_prefix = False


class _CarelessConductor(Conductor):
    async def commit_unsafe_payload(self, envelope: Envelope) -> None:
        """Whatever the payload holds is sealed whole."""
        payload, epoch = envelope.payload, self.publisher.epoch
        if epoch is None:
            raise CallRefused("node is not the leader")
        command = SealWhole(
            epoch,
            self.name,
            payload.block_number,
            payload.parent_hash,
            payload.block_hash,
            envelope_to_bytes(envelope),
        )
        if not isinstance(await self.raft.propose(command, 1.0), Accepted):
            raise CallRefused("refused")


class _Careless(Parts):
    variant = Variant(ledger=_CarelessLedger)
    boost = _CarelessBoost
    conductor = _CarelessConductor


# A proxy that takes any epoch


class _CredulousOrdering(Ordering):
    def _admit(self, arrival: Arrival) -> bool:
        if arrival.epoch is not None:
            self.epoch = min(self.epoch, arrival.epoch)
        return super()._admit(arrival)

    def _take(self, arrival: Arrival) -> Arrival:
        super()._take(arrival)
        self.last = arrival
        return arrival


class _Credulous(Parts):
    conductor = _EmittingConductor
    ordering = _CredulousOrdering


_MOVES: Final = Options(kinds=(faults.TRANSFER, faults.CRASH, faults.HANG))
_CUTS: Final = Options(kinds=(faults.PARTITION, faults.MUTE, faults.HANG))

MUTANTS: Final[dict[str, Mutant]] = {
    "no-fence": Mutant(
        "neither the ledger nor the publisher looks at epochs, and a follower's commands are forwarded to the leader",
        (STALE_EPOCH,),
        _Unfenced,
        _MOVES,
    ),
    "publish-first": Mutant(
        "a flashblock is published when it is offered, not when it is committed",
        (EQUIVOCATION, LOST_FLASHBLOCK),
        _Hasty,
        _CUTS,
    ),
    "slow-fallback": Mutant(
        "an isolated leader believes in itself for 30 s (leaderFallbackTimeout)",
        (STALLED,),
        _SlowFallback,
        Options(kinds=(faults.DEAF,), lasts_s=8.0),
    ),
    "forgets-vote": Mutant(
        "a member forgets term and vote when it restarts (PySyncObj 0.3.14)",
        (EQUIVOCATION, FORK),
        _ForgetsVote,
        Options(kinds=(faults.BOUNCE_VOTERS,)),
    ),
    "follower-emits": Mutant(
        "a conductor that led once passes on what its group builds, whoever leads",
        (STALE_EPOCH, EQUIVOCATION),
        _Emitting,
        _MOVES,
    ),
    "begins-anew": Mutant(
        "a new leader begins the open block at index 0 instead of k+1",
        (EQUIVOCATION, LOST_TRANSACTION),
        _BeginsAnew,
        _MOVES,
    ),
    "careless-seal": Mutant(
        "the fallback EL's block is sealed, whatever was committed of that height",
        (LOST_FLASHBLOCK, LOST_TRANSACTION, REORDERED),
        _Careless,
        Options(kinds=(faults.UNLINK,)),
    ),
    "credulous-proxy": Mutant(
        "a proxy passes on what an older epoch sends (beside a leader that emits after it was deposed)",
        (STALE_EPOCH,),
        _Credulous,
        _MOVES,
        where="proxy-",
    ),
}
