"""What the operator chose for a rollup-boost."""

from dataclasses import dataclass

from flashblocks.rollup_boost.selection import ExecutionMode, Policy

MAX_UNSAFE_INTERVAL_S_DEFAULT = 10.0


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator chose: commit before stream or not, mode at start, selection, staleness limit (0: none)."""

    commit_required: bool = True
    mode: ExecutionMode = ExecutionMode.ENABLED
    policy: Policy = Policy.BUILDER
    ignore_unhealthy_builders: bool = False
    max_unsafe_interval_s: float = MAX_UNSAFE_INTERVAL_S_DEFAULT
