"""What the operator chose for a rollup-boost."""

from dataclasses import dataclass

from flashblocks.rollup_boost.selection import ExecutionMode, Policy

MAX_UNSAFE_INTERVAL_S_DEFAULT = 10.0
FLASHBLOCK_TIME_S_DEFAULT = 0.2


@dataclass(frozen=True, slots=True)
class Rules:
    """What the operator chose: commit before stream or not, mode at start, selection, staleness limit (0: none).

    ``flashblock_time_s``: how often the execution client makes a flashblock where the builder does not.
    """

    commit_required: bool = True
    mode: ExecutionMode = ExecutionMode.ENABLED
    policy: Policy = Policy.BUILDER
    ignore_unhealthy_builders: bool = False
    max_unsafe_interval_s: float = MAX_UNSAFE_INTERVAL_S_DEFAULT
    flashblock_time_s: float = FLASHBLOCK_TIME_S_DEFAULT
