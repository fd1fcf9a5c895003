"""When a member stands for election: the part of the consensus that decides it, over the library's state.

Elections begin with a pre-vote, so that a node that was cut off does not depose a healthy leader on its return, and
begin at once when the leader's connection breaks, one survivor after the other.
"""

from __future__ import annotations

import random
import time
from typing import TYPE_CHECKING, Any, Final

from raft.journal import Journal
from raft.membership import Membership
from raft.replication import Message, PreVotes, as_good_as, election_rank
from raft.settings import RaftSettings
from raft.transport import Peer, Transport

if TYPE_CHECKING:
    from raft.syncobj import Listener

FOLLOWER: Final = 0
CANDIDATE: Final = 1
LEADER: Final = 2

PREVOTE_RETRY_S: Final = (0.04, 0.08)
"""A pre-vote that failed is repeated after a random time of this range; it disturbs nobody."""
PREVOTE_HASTY_ROUNDS: Final = 3
PREVOTE_DOUBLINGS_MAX: Final = 3
"""After so many rounds in vain the next ones wait longer, twice as long each time: the answers to a round come a round
trip later, and between far hosts that is longer than the first rounds wait. The last wait is up to 0.64 s."""
RELUCTANCE_S: Final = 0.25
"""How much longer a member that had better not lead waits before it stands; about what the others' election takes."""
PREVOTE_FAVOUR_S: Final = 0.05
"""How long a pre-vote binds: about as long as the election that it allows takes on a busy machine."""


def prevote_retry_s(rounds: int) -> tuple[float, float]:
    """Within which time the next round of pre-votes begins, seconds, after so many without a leader."""
    longer = 2 ** min(max(0, rounds - PREVOTE_HASTY_ROUNDS), PREVOTE_DOUBLINGS_MAX)
    return PREVOTE_RETRY_S[0] * longer, PREVOTE_RETRY_S[1] * longer


class Elections:
    """Mixed into the consensus: what begins, allows and forbids an election. Runs on the Raft thread."""

    _settings: RaftSettings
    _journal: Journal
    _listener: Listener
    _pre_votes: PreVotes
    _deadline: float
    _heard_leader_at: float
    transport: Transport
    membership: Membership
    rejoining: bool
    reluctant = False
    """Whether others had better lead: this one stands later, but it stands, as its log may be the only whole one."""
    _gave_way: float | None = None  # when a leader was last heard of before this member let the others go first
    leader_lost_at: float | None
    _SyncObj__raftElectionDeadline: float
    _SyncObj__raftState: int
    _SyncObj__raftLeader: Any
    _SyncObj__raftCurrentTerm: int
    _SyncObj__connectedNodes: set[Any]
    _SyncObj__otherNodes: set[Any]
    _SyncObj__transferInProgress: bool
    _SyncObj__setCurrentTerm: Any
    _SyncObj__setState: Any

    def clock(self) -> float:
        """Monotonic seconds."""
        raise NotImplementedError

    def leader_name(self) -> str | None:
        """The leader this node follows and has a link to, or itself, or None."""
        raise NotImplementedError

    def _ask_for_memories(self, now: float) -> None:
        """See `rejoining`: what a member without memory does instead of standing for election."""
        raise NotImplementedError

    def _on_state_changed(self, old: int, new: int) -> None:
        if new == LEADER:
            self._pre_votes.abandon()
        if LEADER in (old, new):
            self._listener.on_role_changed(new == LEADER, self._SyncObj__raftCurrentTerm)

    def _on_peer_death(self, node: Peer) -> None:
        """The leader's connection broke: stand for election soon, one survivor after the other."""
        if self._SyncObj__raftState != FOLLOWER or node != self._SyncObj__raftLeader:
            return
        self.leader_lost_at = time.time()
        names = {peer.id for peer in self._SyncObj__connectedNodes}
        rank = election_rank(self._settings.node_id, node.id, names)
        soon = self.clock() + rank * self._settings.election_stagger_s
        self._SyncObj__raftElectionDeadline = min(self._deadline, soon)

    def _consider_election(self, now: float) -> bool:
        """Whether the library may stand for election in this tick: its deadline has passed and pre-votes were won.

        If the deadline has passed without them, they are asked for.
        """
        if self._SyncObj__raftState == LEADER or self._SyncObj__raftElectionDeadline >= now:
            return False
        if self.rejoining:
            self._ask_for_memories(now)
            return False
        if self._settings.node_id not in self.membership.addresses:
            self._SyncObj__raftElectionDeadline = now + self._settings.raft_max_timeout_s
            return False
        if self._SyncObj__transferInProgress or self._pre_votes.take() or not self._SyncObj__otherNodes:
            return True
        if self.reluctant and self._gave_way != self._heard_leader_at:
            self._gave_way = self._heard_leader_at
            self._SyncObj__raftElectionDeadline = now + RELUCTANCE_S
            return False
        self._ask_for_pre_votes(now)
        return False

    def _ask_for_pre_votes(self, now: float) -> None:
        asked = self._pre_votes.begin(now, self._settings.node_id)
        self._SyncObj__raftElectionDeadline = now + random.uniform(*prevote_retry_s(self._pre_votes.rounds))
        _, last_index, last_term = self._journal[-1]
        for node in self._SyncObj__otherNodes:
            self.transport.send(
                node,
                {
                    "type": "pre_vote",
                    "term": self._SyncObj__raftCurrentTerm,
                    "last_log_index": last_index,
                    "last_log_term": last_term,
                    "round": asked,
                },
            )

    def _on_pre_vote(self, node: Peer, message: Message) -> None:
        term = self._SyncObj__raftCurrentTerm
        if message["term"] < term:
            self.transport.send(node, {"type": "higher_term", "term": term})
            return
        complete = as_good_as(message["last_log_term"], message["last_log_index"], self._journal)
        free = not self.rejoining and not self._leader_lives()
        if complete and free and self._pre_votes.favour(node.id, self.clock()):
            self.transport.send(node, {"type": "pre_vote_granted", "round": message["round"]})

    def _leader_lives(self) -> bool:
        if self._SyncObj__raftState == LEADER:
            return True
        recently = self.clock() - self._heard_leader_at < self._settings.raft_min_timeout_s
        return recently and self.leader_name() is not None

    def _on_pre_vote_granted(self, node: Peer, message: Message) -> None:
        leading = self._SyncObj__raftState == LEADER
        if not leading and self._pre_votes.grant(node.id, message["round"], self._heard_leader_at):
            self._SyncObj__raftElectionDeadline = 0.0

    def _step_down(self, term: int) -> None:
        """Somebody is in a later term: follow into it (Raft, section 5.1)."""
        self._SyncObj__setCurrentTerm(term, None)
        self._SyncObj__setState(FOLLOWER)
        self._SyncObj__raftLeader = None
