"""Who the members are: the settings' peers, overlaid with the changes in the log.

One member is added or removed at a time, by a log entry that counts from the moment it stands in a node's log and not
only once it is committed (Raft dissertation, section 4.1); an entry that is cut again takes its change with it.
PySyncObj has such changes too, but rolls them back with every overlap of two messages; here the members are always what
the log says, however it came to say so.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec

from raft.replication import Log
from raft.settings import MEMBERS_MAX, RaftSettingsError, split_address

MEMBERSHIP: Final = b"\x02"
"""First byte of a log entry that adds or removes a member."""

GUESTS_MAY: Final = ("append_entries", "pre_vote", "request_vote")
"""What is heard from a node that is no member by this node's log: it may lead, or stand, all the same."""


class MemberChange(msgspec.Struct, frozen=True, array_like=True):
    """The member `node` has this "host:port" from now on, or is none any more (None)."""

    node: str
    address: str | None


class Overlay(msgspec.Struct, frozen=True, array_like=True):
    """All changes up to some point of the log: the last word on each member, and how many there were."""

    changed: dict[str, str | None] = {}
    count: int = 0

    def with_change(self, change: MemberChange) -> Overlay:
        """One change later."""
        return Overlay({**self.changed, change.node: change.address}, self.count + 1)


class ChangeRefused(Exception):
    """Why a change of the members is not possible now; nothing was changed."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(MemberChange).decode


def encode_change(change: MemberChange) -> bytes:
    """As a log entry."""
    return MEMBERSHIP + _encode(change)


class Membership:
    """The members as one node's log has them. `base` are the settings' peers: name → "host:port"."""

    def __init__(self, base: Mapping[str, str]) -> None:
        self._base = dict(base)
        self._before = Overlay()
        self._entries: list[tuple[int, MemberChange]] = []
        self.addresses: Mapping[str, str] = {}
        """Name → address of all members."""
        self.version = 1
        """Grows with every change; equal versions of one log mean equal members."""
        self._refresh()

    def on_entry(self, command: bytes, index: int) -> bool:
        """An entry was added to the log; whether the members may be others now."""
        if command[:1] != MEMBERSHIP:
            return False
        self._entries.append((index, _decode(command[1:])))
        return self._refresh()

    def on_cut(self, index: int) -> bool:
        """The log was cut from this index on; whether the members may be others now."""
        if not self._entries or self._entries[-1][0] < index:
            return False
        self._entries = [entry for entry in self._entries if entry[0] < index]
        return self._refresh()

    def restore(self, before: Overlay, index: int, log: Log) -> bool:
        """A snapshot up to `index` with `before` in it, then the log behind it; whether the members may be others."""
        self._before = before
        behind = (log[position] for position in range(len(log)))
        self._entries = [
            (at, _decode(command[1:])) for command, at, _ in behind if at > index and command[:1] == MEMBERSHIP
        ]
        return self._refresh()

    def overlay(self, index: int) -> Overlay:
        """The changes up to an index, as a snapshot that ends there keeps them."""
        found = self._before
        for at, change in self._entries:
            if at <= index:
                found = found.with_change(change)
        return found

    def check(self, change: MemberChange, own: str, connected: set[str], commit_index: int) -> None:
        """Whether the leader `own` may propose this change now; raises ChangeRefused.

        `connected` are the other members it has links to.
        """
        if self._entries and self._entries[-1][0] > commit_index:
            raise ChangeRefused("the change before is not committed yet: try again")
        if change.address is None:
            self._check_removal(change.node, own, connected)
        else:
            self._check_addition(change.node, change.address)

    def _check_removal(self, node: str, own: str, connected: set[str]) -> None:
        if node not in self.addresses:
            raise ChangeRefused(f"{node} is not a member")
        if node == own:
            raise ChangeRefused(f"{node} leads: transfer leadership first")
        remaining = set(self.addresses) - {node}
        if len((connected | {own}) & remaining) * 2 <= len(remaining):
            raise ChangeRefused(f"without {node} no majority of the remaining {len(remaining)} members is connected")

    def _check_addition(self, node: str, address: str) -> None:
        if node in self.addresses:
            raise ChangeRefused(f"{node} is a member already, at {self.addresses[node]}: remove it first")
        if address in self.addresses.values():
            raise ChangeRefused(f"another member has the address {address}")
        if len(self.addresses) >= MEMBERS_MAX:
            raise ChangeRefused(f"{len(self.addresses)} members, at most {MEMBERS_MAX} supported")
        try:
            split_address(address, of=node)
        except RaftSettingsError as error:
            raise ChangeRefused(str(error)) from None

    def _refresh(self) -> bool:
        now = self._before
        for _, change in self._entries:
            now = now.with_change(change)
        addresses = {**self._base, **{name: at for name, at in now.changed.items() if at is not None}}
        for name, address in now.changed.items():
            if address is None:
                addresses.pop(name, None)
        changed = addresses != self.addresses
        self.addresses, self.version = addresses, 1 + now.count
        return changed
