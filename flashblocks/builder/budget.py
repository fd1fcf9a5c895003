"""How much fits into the next flashblock.

All limits are cumulative over the block: flashblock j of F may fill the block up to j/F of each limit, so what an
earlier flashblock left unused carries over by itself, and the deposits of index 0 count against the first share.
A transaction is admitted by its gas *limit*; what it used is what counts afterwards.
"""

import enum
from dataclasses import dataclass, replace


class Refusal(enum.Enum):
    """Why a transaction does not fit now; the value is the name of the builder's counter for it."""

    TRANSACTION_DA = "tx_da_size_exceeded_total"
    BLOCK_DA = "block_da_size_exceeded_total"
    DA_FOOTPRINT = "da_footprint_exceeded_total"
    GAS = "block_gas_limit_exceeded_total"
    UNCOMPRESSED = "block_uncompressed_size_exceeded_total"


@dataclass(frozen=True, slots=True)
class Limits:
    """Limits of one block; None means unlimited.  The operator's ``miner_set…`` calls replace fields of it."""

    gas_limit: int
    da_bytes_per_transaction: int | None = None
    da_bytes_per_block: int | None = None
    da_footprint_gas_scalar: int | None = None
    uncompressed_bytes_per_block: int | None = None
    gas_per_transaction: int | None = None

    def with_da_size(self, per_transaction: int, per_block: int) -> "Limits":
        """Apply ``miner_setMaxDASize(maxTx, maxBlock)``, bytes; 0 means unlimited."""
        return replace(self, da_bytes_per_transaction=per_transaction or None, da_bytes_per_block=per_block or None)

    def with_gas_limit(self, gas_limit: int | None) -> "Limits":
        """Apply ``miner_setGasLimit``: it throttles filling and never raises the block's own limit."""
        return self if gas_limit is None else replace(self, gas_limit=min(self.gas_limit, gas_limit))


@dataclass(frozen=True, slots=True)
class Usage:
    """What the block so far has used, deposits included: gas, estimated compressed bytes, encoded bytes."""

    gas: int = 0
    da_bytes: int = 0
    uncompressed_bytes: int = 0

    def plus(self, gas: int, da_bytes: int, uncompressed_bytes: int) -> "Usage":
        """The usage after one more transaction."""
        return Usage(self.gas + gas, self.da_bytes + da_bytes, self.uncompressed_bytes + uncompressed_bytes)


@dataclass(frozen=True, slots=True)
class Budget:
    """The cumulative targets of one flashblock."""

    limits: Limits
    gas: int
    da_bytes: int | None
    da_footprint_gas: int | None

    def refuses(self, usage: Usage, gas_limit: int, da_bytes: int, size_bytes: int) -> Refusal | None:
        """Say why a transaction with these figures does not fit after ``usage``, in the field's order of checks."""
        limits = self.limits
        if limits.da_bytes_per_transaction is not None and da_bytes > limits.da_bytes_per_transaction:
            return Refusal.TRANSACTION_DA
        if self.da_bytes is not None and usage.da_bytes + da_bytes > self.da_bytes:
            return Refusal.BLOCK_DA
        if (
            limits.da_footprint_gas_scalar is not None
            and self.da_footprint_gas is not None
            and (usage.da_bytes + da_bytes) * limits.da_footprint_gas_scalar > self.da_footprint_gas
        ):
            return Refusal.DA_FOOTPRINT
        if usage.gas + gas_limit > self.gas:
            return Refusal.GAS
        uncompressed = limits.uncompressed_bytes_per_block
        if uncompressed is not None and usage.uncompressed_bytes + size_bytes > uncompressed:
            return Refusal.UNCOMPRESSED
        return None


def budget(limits: Limits, share: int, shares: int) -> Budget:
    """The targets of flashblock number ``share`` of ``shares``, counted from 1 (index 0 takes no pool transaction)."""
    if not 1 <= share <= shares:
        raise ValueError(f"share {share} of {shares}")

    def part(limit: int) -> int:
        # The last share gets the whole limit: what integer division loses is not lost to the block.
        return limit if share == shares else limit // shares * share

    return Budget(
        limits=limits,
        gas=part(limits.gas_limit),
        da_bytes=None if limits.da_bytes_per_block is None else part(limits.da_bytes_per_block),
        da_footprint_gas=None if limits.da_footprint_gas_scalar is None else part(limits.gas_limit),
    )
