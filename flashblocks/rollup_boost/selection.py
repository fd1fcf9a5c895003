"""Whom to ask for a block, and whose block to answer: small tables, every row with its reason."""

import enum
from dataclasses import dataclass

GAS_USED_POLICY_SHARE = 10  # the builder's block is left out when it used less than a tenth of the other's gas


class ExecutionMode(enum.Enum):
    """What the builder is used for; the values are those of ``debug_setExecutionMode``."""

    ENABLED = "enabled"
    DRY_RUN = "dry_run"
    DISABLED = "disabled"

    @property
    def gauge(self) -> int:
        """The value of the gauge ``rollup_boost_execution_mode``."""
        return {ExecutionMode.ENABLED: 3, ExecutionMode.DRY_RUN: 2, ExecutionMode.DISABLED: 1}[self]

    @classmethod
    def parse(cls, text: str) -> "ExecutionMode":
        """Read a mode as the command line (dry-run) and the debug API (dry_run) spell it; raises ValueError."""
        return cls(text.strip().lower().replace("-", "_"))


class Policy(enum.Enum):
    """How to choose between two valid blocks of which nothing was promised."""

    BUILDER = "builder"
    GAS_USED = "gas-used"


class Source(enum.Enum):
    """Where the answered block comes from; the values label ``rpc.blocks_created`` and the log line."""

    FLASHBLOCKS = "flashblocks"
    BUILDER = "builder"
    L2 = "l2"


@dataclass(frozen=True, slots=True)
class Offer:
    """A complete block on offer: its gas used, whether the execution client found it VALID, and its transactions."""

    gas_used: int
    valid: bool = True
    transactions: int = 0


def asks_builder(mode: ExecutionMode, no_tx_pool: bool, builder_ok: bool, ignore_unhealthy: bool) -> bool:
    """Say whether attributes go to the builder as well."""
    if mode is ExecutionMode.DISABLED:
        return False  # the operator took the builder out
    if no_tx_pool:
        return False  # derived or recovery blocks have nothing to order
    # By default a builder in disgrace still gets the attributes: that is how it shows that it has recovered.
    return builder_ok or not ignore_unhealthy


def streams(mode: ExecutionMode) -> bool:
    """Say whether flashblocks may be promised to anyone: only if they will be the block."""
    return mode is ExecutionMode.ENABLED


def choose(
    promised: bool, mode: ExecutionMode, policy: Policy, builder: Offer | None, l2: Offer | None
) -> Source | None:
    """Choose the block to answer; None when there is none."""
    if promised:
        return Source.FLASHBLOCKS  # somebody has seen them: no mode, policy or failure may replace this block
    if l2 is None:
        return None  # as upstream: without the execution client there is no fallback and the call fails
    if mode is not ExecutionMode.ENABLED:
        return Source.L2
    if builder is None or not builder.valid:
        return Source.L2
    if policy is Policy.GAS_USED and builder.gas_used * GAS_USED_POLICY_SHARE < l2.gas_used:
        return Source.L2
    return Source.BUILDER
