"""The rollup's configuration as the op-node needs it, read from the genesis file (geth's format with OP fields)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from flashblocks.sequencing.references import BlockId
from flashblocks.wire.hexadecimal import data, to_bytes, to_int

BLOCK_TIME_S: Final = 2
MAX_SEQUENCER_DRIFT_S: Final = 1800
"""Constant since Fjord (OP specs, protocol/fjord/derivation)."""
SEQUENCER_WINDOW_BLOCKS: Final = 3600
CHANNEL_TIMEOUT_BLOCKS: Final = 300
L1_CHAIN_ID: Final = 900
BATCHER_ADDRESS: Final = bytes.fromhex("3c44cdddb6a900fa2b585dd299e03d12fa4293bc")
BASE_FEE_SCALAR: Final = 1368
BLOB_BASE_FEE_SCALAR: Final = 810_949
EIP1559_DENOMINATOR: Final = 250
EIP1559_ELASTICITY: Final = 6
DA_FOOTPRINT_GAS_SCALAR: Final = 400
SEQUENCER_FEE_VAULT: Final = bytes.fromhex("4200000000000000000000000000000000000011")


class SystemConfig(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the SystemConfig contract on L1 would say; fees in wei, `eip1559_params` as in the payload attributes."""

    gas_limit: int
    batcher_address: bytes = BATCHER_ADDRESS
    base_fee_scalar: int = BASE_FEE_SCALAR
    blob_base_fee_scalar: int = BLOB_BASE_FEE_SCALAR
    operator_fee_scalar: int = 0
    operator_fee_constant: int = 0
    eip1559_denominator: int = EIP1559_DENOMINATOR
    eip1559_elasticity: int = EIP1559_ELASTICITY
    min_base_fee: int = 0
    da_footprint_gas_scalar: int = DA_FOOTPRINT_GAS_SCALAR

    @property
    def eip1559_params(self) -> bytes:
        """Denominator and elasticity, four bytes each (Holocene)."""
        return self.eip1559_denominator.to_bytes(4, "big") + self.eip1559_elasticity.to_bytes(4, "big")


class RollupConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Genesis, block time and forks of the chain; `jovian_time` None means Isthmus for ever. Times in Unix seconds."""

    l2_chain_id: int
    genesis_hash: bytes
    genesis_time: int
    genesis_l1: BlockId
    system_config: SystemConfig
    block_time_s: int = BLOCK_TIME_S
    max_sequencer_drift_s: int = MAX_SEQUENCER_DRIFT_S
    jovian_time: int | None = None

    def is_jovian(self, timestamp: int) -> bool:
        """Whether a block of that time follows Jovian's rules."""
        return self.jovian_time is not None and timestamp >= self.jovian_time

    def activates_jovian(self, timestamp: int) -> bool:
        """Whether the block of that time is Jovian's first."""
        return self.is_jovian(timestamp) and not self.is_jovian(timestamp - self.block_time_s)

    def to_json(self) -> dict[str, Any]:
        """Spell the configuration as `optimism_rollupConfig` does."""
        system = self.system_config
        early_forks = ("regolith", "canyon", "delta", "ecotone", "fjord", "granite", "holocene", "isthmus")
        obj: dict[str, Any] = {
            "genesis": {
                "l1": self.genesis_l1.to_json(),
                "l2": BlockId(0, self.genesis_hash).to_json(),
                "l2_time": self.genesis_time,
                "system_config": {
                    "batcherAddr": data(system.batcher_address),
                    "overhead": data(b"\0" * 32),
                    "scalar": data(_ecotone_scalar(system)),
                    "gasLimit": system.gas_limit,
                    "eip1559Params": data(system.eip1559_params),
                    "operatorFeeParams": data(_operator_fee_params(system)),
                    "minBaseFee": system.min_base_fee,
                    "daFootprintGasScalar": system.da_footprint_gas_scalar,
                },
            },
            "block_time": self.block_time_s,
            "max_sequencer_drift": self.max_sequencer_drift_s,
            "seq_window_size": SEQUENCER_WINDOW_BLOCKS,
            "channel_timeout": CHANNEL_TIMEOUT_BLOCKS,
            "l1_chain_id": L1_CHAIN_ID,
            "l2_chain_id": self.l2_chain_id,
            **{f"{fork}_time": 0 for fork in early_forks},
            "batch_inbox_address": data(b"\xff" + b"\0" * 17 + self.l2_chain_id.to_bytes(8, "big")[-2:]),
            "deposit_contract_address": data(b"\0" * 20),
            "l1_system_config_address": data(b"\0" * 20),
            "protocol_versions_address": data(b"\0" * 20),
            "chain_op_config": {
                "eip1559Elasticity": system.eip1559_elasticity,
                "eip1559Denominator": system.eip1559_denominator,
                "eip1559DenominatorCanyon": system.eip1559_denominator,
            },
        }
        if self.jovian_time is not None:
            obj["jovian_time"] = self.jovian_time
        return obj


def rollup_config(
    genesis: Mapping[str, Any], genesis_hash: bytes, genesis_l1: BlockId, block_time_s: int
) -> RollupConfig:
    """Read a genesis file; raises WireError naming the field that is wrong.

    `config.optimism` may name the EIP-1559 constants, `systemConfig` (ours, optional) any field of SystemConfig.
    """
    config = genesis.get("config") or {}
    optimism = config.get("optimism") or {}
    jovian = config.get("jovianTime")
    chosen: dict[str, Any] = {
        "gas_limit": to_int(genesis.get("gasLimit"), "gasLimit"),
        "eip1559_denominator": int(optimism.get("eip1559DenominatorCanyon", EIP1559_DENOMINATOR)),
        "eip1559_elasticity": int(optimism.get("eip1559Elasticity", EIP1559_ELASTICITY)),
    }
    for name, value in (genesis.get("systemConfig") or {}).items():
        chosen[name] = to_bytes(value, 20, name) if name == "batcher_address" else to_int(value, name)
    return RollupConfig(
        l2_chain_id=to_int(config.get("chainId"), "config.chainId"),
        genesis_hash=genesis_hash,
        genesis_time=to_int(genesis.get("timestamp"), "timestamp"),
        genesis_l1=genesis_l1,
        system_config=msgspec.convert(chosen, SystemConfig),
        block_time_s=block_time_s,
        jovian_time=None if jovian is None else to_int(jovian, "config.jovianTime"),
    )


def _ecotone_scalar(system: SystemConfig) -> bytes:
    scalars = system.blob_base_fee_scalar.to_bytes(4, "big") + system.base_fee_scalar.to_bytes(4, "big")
    return b"\x01" + b"\0" * 23 + scalars


def _operator_fee_params(system: SystemConfig) -> bytes:
    fees = system.operator_fee_scalar.to_bytes(4, "big") + system.operator_fee_constant.to_bytes(8, "big")
    return b"\0" * 20 + fees
