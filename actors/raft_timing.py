"""Raft's time-outs by the distance of the hosts: between far hosts, no answer is in time for a neighbour's patience.

The time-outs for neighbours were measured.  Each of them grows by as many round trips as the exchange it waits for
takes, and by one more for a packet that is lost and sent again.
"""

from __future__ import annotations

import msgspec

from raft.settings import RaftSettings

# By setting: how many round trips its time-out grows by.
ROUND_TRIPS = {
    "raft_min_timeout_s": 2.0,  # a heartbeat that was lost, and sent again after a round trip and more
    "raft_max_timeout_s": 3.0,  # apart from the minimum by one, so that two candidates seldom meet
    "leader_fallback_timeout_s": 2.0,  # an entry there, its acknowledgement back, once again
    "connection_timeout_s": 4.0,
    "handshake_timeout_s": 4.0,  # TCP's own, and two of ours
    "election_stagger_s": 2.0,  # pre-vote and vote of the first survivor, before the second one stands
}


def for_distance(settings: RaftSettings, round_trip_ms: int) -> RaftSettings:
    """The same settings for hosts so far from each other."""
    return msgspec.structs.replace(settings, **timeouts_s(round_trip_ms))


def timeouts_s(round_trip_ms: int) -> dict[str, float]:
    """The settings of `RaftSettings` that depend on the distance, for the longest round trip between two hosts."""
    defaults = {field.name: field.default for field in msgspec.structs.fields(RaftSettings)}
    return {name: round(defaults[name] + trips * round_trip_ms / 1000, 3) for name, trips in ROUND_TRIPS.items()}
