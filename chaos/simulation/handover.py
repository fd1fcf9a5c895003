"""A leader hands over and waits until leadership is elsewhere: what `raft.node` does in `transfer_leadership`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from chaos.simulation.kernel import Process
from raft.commands import Reason, Refused
from raft.node import Transferred, Unknown

if TYPE_CHECKING:
    from chaos.simulation.consensus import Consensus

POLL_S: Final = 0.01
ASK_AGAIN_S: Final = 0.1


async def hand_over(
    raft: Consensus, process: Process, target: str | None, timeout_s: float
) -> Transferred | Refused | Unknown:
    """Ask the target until it leads; Refused where it never was level, Unknown where it was asked and nothing came."""
    clock = process.clock
    deadline, asked_at = clock.now + timeout_s, float("-inf")
    while (leader := raft.leader()) is None or leader == raft.name:
        if clock.now >= deadline:
            asked = asked_at > 0 or not raft.is_leader
            return Unknown("timeout") if asked else Refused(Reason.NOT_CAUGHT_UP, "")
        if clock.now - asked_at > ASK_AGAIN_S and raft.asks_to_stand(target):
            asked_at = clock.now
        await process.sleep(POLL_S)
    return Transferred(leader, raft.term)
