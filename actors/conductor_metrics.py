"""The conductor's metrics under op-conductor's names and labels, and the few that are ours."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from importlib.metadata import version
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from actors.upstream_metrics import UpstreamMetrics
from flashblocks.conductor.health import Health

if TYPE_CHECKING:
    from actors.conductor import Conductor

PREFIX = "op_conductor_"
LOOP_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
"""op-conductor's, which are the Go client's."""


class ConductorMetrics(Collector):
    """Counts what one conductor does; what is kept elsewhere is read when the metrics are."""

    def __init__(self, registry: CollectorRegistry, conductor: Conductor) -> None:
        self._conductor = conductor
        self._state: tuple[bool, bool, bool] | None = None
        self._upstream = UpstreamMetrics(PREFIX)
        self._upstream.gauge("info", 1, version=version("flashblocks"))
        self._upstream.gauge("up", 1)
        for name in ("leader_transfers_count", "sequencer_starts_count", "sequencer_stops_count"):
            for success in (True, False):
                self._upstream.count(name, 0, success=_text(success))
        self._upstream.count("healthchecks_count", 0, success="true", error="")
        self._loop = Histogram(
            f"{PREFIX}loop_execution_time",
            "Seconds that an action of the control loop took, from the decision to its end",
            buckets=LOOP_BUCKETS_S,
            registry=registry,
        )
        registry.register(self)
        for name, text, value in (
            ("flashblocks_published", "Flashblocks published", lambda: conductor.stream.published),
            ("epoch", "Newest claimed epoch", lambda: conductor.raft.ledger.epoch),
            ("leader_overridden", "1 while an operator lets this node lead", lambda: conductor.overridden),
        ):
            Gauge(f"{PREFIX}{name}", text, registry=registry).set_function(value)

    def transferred(self, ok: bool) -> None:
        """Leadership was to be handed on."""
        self._upstream.count("leader_transfers_count", success=_text(ok))

    def started(self, ok: bool) -> None:
        """The sequencer was to be started."""
        self._upstream.count("sequencer_starts_count", success=_text(ok))

    def stopped(self, ok: bool) -> None:
        """The sequencer was to be stopped."""
        self._upstream.count("sequencer_stops_count", success=_text(ok))

    def checked(self, health: Health) -> None:
        """One turn of the health check ended with that verdict."""
        self._upstream.count("healthchecks_count", success=_text(health.healthy), error=health.sickness.value)

    def looked(self, leader: bool, healthy: bool, active: bool) -> None:
        """The control loop looked at its three flags; a change of them is counted under what they are now."""
        state = (leader, healthy, active)
        if self._state is not None and state != self._state:
            flags = _text(leader), _text(healthy), _text(active)
            self._upstream.count("state_changes_count", leader=flags[0], healthy=flags[1], active=flags[2])
        self._state = state

    @contextmanager
    def acting(self) -> Iterator[None]:
        """Time one action of the control loop."""
        began = time.monotonic()
        try:
            yield
        finally:
            self._loop.observe(time.monotonic() - began)

    def collect(self) -> Iterable[Metric]:
        """Write everything under op-conductor's names; called by the registry."""
        boost = self._conductor.boost
        links = boost.counters
        for success, number in ((True, links.connects), (False, max(0, links.attempts - links.connects))):
            labels = {"success": _text(success), "source": boost.url}
            self._upstream.set_count("rollup_boost_connection_attempts_count", number, **labels)
        self._upstream.gauge("websocket_clients_connected", len(self._conductor.public.peers))
        return self._upstream.collect()


def _text(flag: bool) -> str:
    return str(flag).lower()
