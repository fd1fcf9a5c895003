"""Settings of one Raft node: names with units, defaults that were measured, constraints checked once."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import msgspec

PASSWORD_BYTES_MIN: Final = 32
MEMBERS_MAX: Final = 9


class RaftSettingsError(ValueError):
    """A setting is missing or contradicts another one; the text names both."""


def read_password(path: Path) -> bytes:
    """The cluster's shared secret, as raw bytes without surrounding white space.

    Raises RaftSettingsError if the file is absent or holds fewer than 32 bytes: without a strong secret
    anybody who reaches the port could vote, append and forge status.
    """
    try:
        secret = path.read_bytes().strip()
    except OSError as error:
        raise RaftSettingsError(f"cannot read the raft password file {path}: {error.strerror}") from error
    if len(secret) < PASSWORD_BYTES_MIN:
        raise RaftSettingsError(
            f"raft password in {path} has {len(secret)} bytes, at least {PASSWORD_BYTES_MIN} needed"
        )
    return secret


class RaftSettings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Everything a node needs to know before it starts. `peers` names all members, this one included.

    The time-outs are the measured working set: an election on a lost connection takes a few milliseconds
    (`election_stagger_s` per rank), a hang is noticed within `raft_max_timeout_s`, and an isolated leader
    stops believing in itself after `leader_fallback_timeout_s`.
    """

    node_id: str
    peers: dict[str, str]
    """Node id → "host:port"; the same on every node."""
    data_dir: Path
    password: bytes
    genesis_number: int
    genesis_hash: bytes
    listen: str | None = None
    """"host:port" to bind, where it differs from this node's address in `peers`."""

    raft_min_timeout_s: float = 0.3
    raft_max_timeout_s: float = 0.4
    append_entries_period_s: float = 0.05
    leader_fallback_timeout_s: float = 0.3
    connection_timeout_s: float = 0.5
    connection_retry_s: float = 0.2
    handshake_timeout_s: float = 1.0
    tick_period_s: float = 0.02
    """Longest wait of the Raft thread; messages, proposals and due elections end it at once."""
    election_stagger_s: float = 0.03
    """How much later each further survivor stands for election after the leader's connection broke."""

    commands_queue_max: int = 1024
    append_batch_bytes_max: int = 64 * 1024 * 1024
    socket_buffer_bytes: int = 4 * 1024 * 1024
    link_backlog_bytes_max: int = 256 * 1024 * 1024
    """Unsent bytes towards one peer after which its connection is given up."""

    fsync: bool = False
    """Force entries and votes to the disk before they are acknowledged. Without it they survive any end of the process
    but not of the machine: turn it on where a power cut must not make a member forget (it costs a disk's latency)."""
    segment_bytes: int = 32 * 1024 * 1024
    free_space_bytes_min: int = 64 * 1024 * 1024
    compaction_entries: int = 2_000
    compaction_bytes: int = 128 * 1024 * 1024
    compaction_interval_s: float = 300.0
    trailing_entries: int = 500
    """Log entries kept behind a snapshot so that a node that was away shortly needs no snapshot."""
    trailing_bytes_max: int = 32 * 1024 * 1024

    @property
    def room_bytes(self) -> int:
        """What has to be free on the disk for a journal to begin, or to go on after the disk was full."""
        return self.segment_bytes + self.free_space_bytes_min

    def __repr__(self) -> str:
        """Without the password, which must not end up in a log."""
        return f"RaftSettings(node_id={self.node_id!r}, peers={self.peers!r}, data_dir={str(self.data_dir)!r}, …)"

    def __post_init__(self) -> None:
        self._check_members()
        self._check_times()
        self._check_sizes()

    def _check_members(self) -> None:
        if self.node_id not in self.peers:
            raise RaftSettingsError(f"node_id {self.node_id!r} is not among the peers {sorted(self.peers)}")
        if len(self.peers) > MEMBERS_MAX:
            raise RaftSettingsError(f"{len(self.peers)} members, at most {MEMBERS_MAX} supported")
        if len(set(self.peers.values())) != len(self.peers):
            raise RaftSettingsError("two members have the same address")
        for node, address in self.peers.items():
            split_address(address, of=node)
        if self.listen is not None:
            split_address(self.listen, of="listen")
        if len(self.password) < PASSWORD_BYTES_MIN:
            raise RaftSettingsError(f"password has {len(self.password)} bytes, at least {PASSWORD_BYTES_MIN} needed")
        if len(self.genesis_hash) != 32 or self.genesis_number < 0:
            raise RaftSettingsError("genesis needs a number ≥ 0 and a hash of 32 bytes")

    def _check_times(self) -> None:
        for smaller, larger in (
            ("tick_period_s", "append_entries_period_s"),
            ("append_entries_period_s", "leader_fallback_timeout_s"),
            ("raft_min_timeout_s", "raft_max_timeout_s"),
            ("raft_max_timeout_s", "connection_timeout_s"),
        ):
            if not 0 < getattr(self, smaller) < getattr(self, larger):
                raise RaftSettingsError(f"{smaller} must be positive and less than {larger}")
        if self.raft_min_timeout_s <= 3 * self.append_entries_period_s:
            raise RaftSettingsError("raft_min_timeout_s must be more than three append_entries_period_s")
        if self.leader_fallback_timeout_s > self.raft_min_timeout_s:
            raise RaftSettingsError(
                "leader_fallback_timeout_s above raft_min_timeout_s: two nodes could believe to lead"
            )
        if self.election_stagger_s < 0 or self.connection_retry_s <= 0 or self.handshake_timeout_s <= 0:
            raise RaftSettingsError("election_stagger_s, connection_retry_s and handshake_timeout_s must be positive")

    def _check_sizes(self) -> None:
        for name in (
            "commands_queue_max",
            "append_batch_bytes_max",
            "socket_buffer_bytes",
            "link_backlog_bytes_max",
            "segment_bytes",
            "compaction_bytes",
            "trailing_entries",
            "trailing_bytes_max",
        ):
            if getattr(self, name) <= 0:
                raise RaftSettingsError(f"{name} must be positive")
        if self.compaction_entries <= self.trailing_entries:
            raise RaftSettingsError("compaction_entries must be more than trailing_entries")
        if self.compaction_bytes <= self.trailing_bytes_max:
            raise RaftSettingsError("compaction_bytes must be more than trailing_bytes_max")


def split_address(address: str, of: str) -> tuple[str, int]:
    """ "host:port" → (host, port); raises RaftSettingsError naming `of` for anything else."""
    host, colon, port = address.rpartition(":")
    if not colon or not host or not port.isdigit() or not 0 < int(port) < 65536:
        raise RaftSettingsError(f"address of {of} is {address!r}, expected host:port")
    return host.strip("[]"), int(port)


def library_options(settings: RaftSettings) -> dict[str, Any]:
    """The settings under the consensus library's names; what is fixed here was measured, not chosen.

    With batching an entry waits up to a period; entries above the batch size go through a faulty path; forking a
    process full of threads is not safe; a command that waits for a leader would reach another one than meant.
    """
    return {
        "autoTick": False,
        "autoTickPeriod": settings.tick_period_s,
        "commandsQueueSize": settings.commands_queue_max,
        "raftMinTimeout": settings.raft_min_timeout_s,
        "raftMaxTimeout": settings.raft_max_timeout_s,
        "appendEntriesPeriod": settings.append_entries_period_s,
        "leaderFallbackTimeout": settings.leader_fallback_timeout_s,
        "connectionTimeout": settings.connection_timeout_s,
        "connectionRetryTime": settings.connection_retry_s,
        "appendEntriesUseBatch": False,
        "appendEntriesBatchSizeBytes": settings.append_batch_bytes_max,
        "commandsWaitLeader": False,
        "dynamicMembershipChange": False,
        "logCompactionMinEntries": settings.compaction_entries,
        "logCompactionMinTime": settings.compaction_interval_s,
        "useFork": False,
    }
