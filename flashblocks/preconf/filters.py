"""Filters that are polled (`eth_newFilter` and its kin) instead of pushed: an emitter, and what it emitted so far."""

from collections import deque
from collections.abc import Callable
from typing import Any

from flashblocks.preconf.events import Event, HeadChanged
from flashblocks.preconf.subscriptions import Emit
from flashblocks.wire.hexadecimal import data, quantity
from flashblocks.wire.jsonrpc import SERVER_ERROR, RpcError

FILTERS_MAX = 1_000
CHANGES_MAX = 10_000
IDLE_S_MAX = 300.0


class _Filter:
    __slots__ = ("asked_at", "changes", "criteria", "emit")

    def __init__(self, emit: Emit, criteria: Any, now: float) -> None:
        self.emit, self.criteria, self.asked_at = emit, criteria, now
        self.changes: deque[Any] = deque(maxlen=CHANGES_MAX)


class Filters:
    """Installed filters by id. One that nobody polls for five minutes is dropped; the longest unpolled makes room.

    `new_id` draws an unguessable number: a filter belongs to whoever knows its id.
    """

    def __init__(self, new_id: Callable[[], int]) -> None:
        self._new_id = new_id
        self._filters: dict[str, _Filter] = {}

    def install(self, emit: Emit, now: float, criteria: Any = None) -> str:
        """A new filter's id. `criteria` come back from `criteria_of`."""
        self._drop_idle(now)
        if len(self._filters) >= FILTERS_MAX:
            del self._filters[min(self._filters, key=lambda name: self._filters[name].asked_at)]
        name = quantity(self._new_id())
        self._filters[name] = _Filter(emit, criteria, now)
        return name

    def uninstall(self, name: Any) -> bool:
        """Whether there was one."""
        return self._filters.pop(name, None) is not None if isinstance(name, str) else False

    def event(self, event: Event) -> None:
        """Something happened: every filter collects what it wants of it."""
        for each in self._filters.values():
            each.changes.extend(each.emit(event))

    def changes(self, name: Any, now: float) -> list[Any]:
        """What came since the last call; raises RpcError for a filter that is not there."""
        self._drop_idle(now)
        found = self._find(name)
        found.asked_at = now
        changes = list(found.changes)
        found.changes.clear()
        return changes

    def criteria_of(self, name: Any) -> Any:
        """What the filter was installed with; raises RpcError."""
        return self._find(name).criteria

    def __len__(self) -> int:
        return len(self._filters)

    def _find(self, name: Any) -> _Filter:
        found = self._filters.get(name) if isinstance(name, str) else None
        if found is None:
            raise RpcError(SERVER_ERROR, "filter not found")
        return found

    def _drop_idle(self, now: float) -> None:
        for name in [name for name, each in self._filters.items() if each.asked_at < now - IDLE_S_MAX]:
            del self._filters[name]


def block_hashes(event: Event) -> list[Any]:
    """What a block filter collects: hashes of new heads."""
    return [data(block.hash) for block in event.added] if isinstance(event, HeadChanged) else []
