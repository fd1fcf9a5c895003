"""Every call to Ray for a cluster on many hosts: join it, place and create detached actors, end them, leave.

Actors are detached, so they outlive whoever created them, and pinned to their hosts by the resource ``node:ADDRESS``
that Ray gives every node: a host that comes back gets its actors back, another host never gets them.  The members of
a group share a placement group (STRICT_PACK).
"""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Sequence
from pathlib import Path
from typing import Any

import ray
from ray.util import list_named_actors, placement_group_table, remove_placement_group
from ray.util.placement_group import PlacementGroup, get_placement_group, placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from actors.cluster import CALLS_AT_ONCE
from actors.endpoints import GROUP_COMPONENTS
from actors.host_agent import NOTES_DIRECTORY, HostAgent, delivered_name
from actors.join_order import KEEPER, JoinOrder, namespace_of
from actors.placement import NODE_PREFIX, SEQUENCER
from actors.plan import LOG_DIRECTORY, ComponentPlan
from actors.shell import ComponentActor

PIN = 0.001  # of a resource: enough to be bound to it, so little that it never runs out
AGENT_PREFIX = "host/"
KEEPER_COMPONENT = "actors.keeper:Keeper"
GONE_S_MAX = 20.0
GONE_POLL_S = 0.1
REMOVE_S_MAX = 10.0
OTLP_VARIABLE = "OTEL_EXPORTER_OTLP_ENDPOINT"


def connect(address: str, name: str) -> None:
    """Join the Ray cluster at *address* as a driver in the namespace of the cluster *name* (blocking, 1–5 s)."""
    ray.init(address=address, namespace=namespace_of(name), configure_logging=False, log_to_driver=False)


def disconnect() -> None:
    """Leave it; detached actors stay."""
    ray.shutdown()


def nodes() -> list[dict[str, Any]]:
    """Every node Ray knows, dead ones too."""
    found: list[dict[str, Any]] = ray.nodes()
    return found


def own_address() -> str:
    """The address of the node this process runs on."""
    address: str = ray.util.get_node_ip_address()
    return address


def gcs_address() -> str:
    """``host:port`` of the head, for those who join later."""
    address: str = ray.get_runtime_context().gcs_address
    return address


class JoinedCluster:
    """The actors of one order."""

    def __init__(self, order: JoinOrder) -> None:
        self._order = order
        self._run_dir = Path(order.run_dir)

    def ensure_keeper(self, settings: dict[str, Any]) -> Any:
        """The keeper's actor, on any host of its kind."""
        kind = {self._order.placement.keeper_kind: PIN}
        return self._component(KEEPER, KEEPER_COMPONENT, settings, KEEPER, wait_for="", resources=kind)

    def ensure_agent(self, address: str) -> Any:
        """The agent of the host *address*."""
        order = self._order
        return (
            ray.remote(HostAgent)
            .options(  # type: ignore[attr-defined]
                name=AGENT_PREFIX + address,
                namespace=order.namespace,
                lifetime="detached",
                get_if_exists=True,
                max_restarts=-1,
                num_cpus=0,
                resources=_pinned_to(address),
            )
            .remote(order.run_dir, order.data_dir, order.marker)
        )

    def ensure(self, plan: Sequence[ComponentPlan]) -> dict[str, Any]:
        """The actors of *plan* by name, creating what is not there; returns before they run."""
        groups = {each.instance: self._ensure_group(each) for each in plan if each.component in GROUP_COMPONENTS}
        handles = {}
        for each in plan:
            where: dict[str, Any] = {"resources": _pinned_to(each.host)}
            if each.instance in groups:
                bundle = GROUP_COMPONENTS.index(each.component)
                where = {"scheduling_strategy": PlacementGroupSchedulingStrategy(groups[each.instance], bundle)}
            handles[each.actor_name] = self._component(
                each.actor_name,
                each.component,
                each.settings,
                each.note_name,
                wait_for=str(self._run_dir / delivered_name(self._order.marker)),
                **where,
            )
        return handles

    def renew(self, stale: Sequence[ComponentPlan]) -> dict[str, Any]:
        """End the actors of *stale* and create them anew, with their settings and where they belong now."""
        for each in stale:
            try:
                end_actor(ray.get_actor(each.actor_name, namespace=self._order.namespace))
            except ValueError:
                continue
        wait_until_gone(self._order.options.name, [each.actor_name for each in stale])
        return self.ensure(stale)

    def _ensure_group(self, each: ComponentPlan) -> PlacementGroup:
        name = f"{self._order.options.name}/{each.instance}@{each.host}"
        try:
            return get_placement_group(name)
        except ValueError:
            bundle = {**_pinned_to(each.host), SEQUENCER: PIN}
            return placement_group([bundle] * len(GROUP_COMPONENTS), "STRICT_PACK", name=name, lifetime="detached")

    def _component(
        self, name: str, component: str, settings: dict[str, Any], note: str, *, wait_for: str, **where: Any
    ) -> Any:
        order = self._order
        if order.otlp_url:
            where["runtime_env"] = {"env_vars": {OTLP_VARIABLE: order.otlp_url}}
        return (
            ray.remote(ComponentActor)
            .options(  # type: ignore[attr-defined]
                name=name,
                namespace=order.namespace,
                lifetime="detached",
                get_if_exists=True,
                max_restarts=-1,
                max_concurrency=CALLS_AT_ONCE,
                num_cpus=0,
                **where,
            )
            .remote(
                component,
                settings,
                str(Path(order.data_dir) / LOG_DIRECTORY),
                order.options.log_level,
                str(self._run_dir / NOTES_DIRECTORY / note),
                wait_for,
            )
        )


def _pinned_to(address: str) -> dict[str, float]:
    return {NODE_PREFIX + address: PIN}


def wait_until_gone(name: str, wanted: Collection[str]) -> None:
    """Wait, in bounded time, until Ray knows none of the actors *wanted* any more."""
    deadline = time.monotonic() + GONE_S_MAX
    while time.monotonic() < deadline and set(wanted) & actors_of(name).keys():
        time.sleep(GONE_POLL_S)


def retire(order: JoinOrder) -> None:
    """Let go of the hosts that the order does not name any more: their agents and placement groups."""
    placed = order.placement.groups
    remove_groups(order.options.name, [f"sequencer-{index}@{address}" for index, address in enumerate(placed)])
    for name, handle in actors_of(order.options.name).items():
        if name.startswith(AGENT_PREFIX) and name.removeprefix(AGENT_PREFIX) not in order.placement.hosts():
            answers({name: handle.remove.remote()}, REMOVE_S_MAX)
            end_actor(handle)


def actors_of(name: str) -> dict[str, Any]:
    """The handles of all actors of the cluster *name*, by actor name."""
    namespace = namespace_of(name)
    found = {}
    for each in list_named_actors(all_namespaces=True):
        if each["namespace"] == namespace:
            try:
                found[each["name"]] = ray.get_actor(each["name"], namespace=namespace)
            except ValueError:  # it was ended meanwhile
                continue
    return found


def agents_of(name: str) -> dict[str, Any]:
    """The agents of the cluster *name*, by the address of their host."""
    actors = actors_of(name).items()
    return {actor.removeprefix(AGENT_PREFIX): handle for actor, handle in actors if actor.startswith(AGENT_PREFIX)}


def result(reference: Any, timeout_s: float) -> Any:
    """What a call returned; raises what it raised, and Ray's time-out."""
    return ray.get(reference, timeout=timeout_s)


def answers(references: dict[str, Any], timeout_s: float) -> dict[str, Any]:
    """The results of those calls that succeeded in time, by name."""
    by_reference = {reference: name for name, reference in references.items()}
    if not by_reference:
        return {}
    done, _ = ray.wait(list(by_reference), num_returns=len(by_reference), timeout=timeout_s)
    found = {}
    for reference in done:
        try:
            found[by_reference[reference]] = ray.get(reference)
        except Exception:  # whose actor or host is gone has nothing to say
            continue
    return found


def end_actor(handle: Any) -> None:
    """SIGKILL an actor; it is not started again."""
    ray.kill(handle, no_restart=True)


def restart_actor(handle: Any) -> None:
    """SIGKILL an actor's process; Ray starts it again."""
    ray.kill(handle, no_restart=False)


def remove_groups(name: str, except_for: Iterable[str] = ()) -> None:
    """Remove the placement groups of the cluster *name*, but those called ``INSTANCE@HOST`` in *except_for*."""
    keep = {f"{name}/{each}" for each in except_for}
    for group in placement_group_table().values():
        is_ours = group["name"].startswith(f"{name}/sequencer-") and "@" in group["name"]
        if is_ours and group["name"] not in keep and group["state"] != "REMOVED":
            try:
                remove_placement_group(get_placement_group(group["name"]))
            except ValueError:
                continue
