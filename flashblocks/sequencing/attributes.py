"""Payload attributes of the next block: its deposits, its limits and fee parameters, its place in time."""

from __future__ import annotations

from flashblocks.sequencing.deposits import L1Info, encode_l1_info, encode_user_deposit
from flashblocks.sequencing.l1 import SimulatedL1
from flashblocks.sequencing.origin import Origin
from flashblocks.sequencing.references import L2BlockRef
from flashblocks.sequencing.rollup import SEQUENCER_FEE_VAULT, RollupConfig
from flashblocks.wire.engine import PayloadAttributes


def next_attributes(config: RollupConfig, l1: SimulatedL1, head: L2BlockRef, origin: Origin) -> PayloadAttributes:
    """Attributes of the block on `head` with that origin: the L1-attributes deposit, users' deposits, then the pool.

    User deposits are in the first block of an epoch only. A fork's first block takes nothing from the pool and still
    uses the previous format of the L1 attributes, as the contract is not upgraded when transaction 0 runs.
    """
    timestamp = head.timestamp + config.block_time_s
    activation = config.activates_jovian(timestamp)
    transactions = [encode_l1_info(_l1_info(config, origin, jovian=config.is_jovian(timestamp) and not activation))]
    if origin.sequence_number == 0:
        for log_index, deposit in enumerate(l1.deposits(origin.block.number)):
            transactions.append(encode_user_deposit(deposit, origin.block.hash, log_index))
    return PayloadAttributes(
        timestamp=timestamp,
        prev_randao=origin.block.mix_hash,
        fee_recipient=SEQUENCER_FEE_VAULT,
        parent_beacon_block_root=origin.block.parent_beacon_block_root,
        transactions=tuple(transactions),
        no_tx_pool=origin.no_tx_pool or activation,
        gas_limit=config.system_config.gas_limit,
        eip1559_params=config.system_config.eip1559_params,
        min_base_fee=config.system_config.min_base_fee if config.is_jovian(timestamp) else None,
    )


def _l1_info(config: RollupConfig, origin: Origin, jovian: bool) -> L1Info:
    system = config.system_config
    return L1Info(
        number=origin.block.number,
        timestamp=origin.block.timestamp,
        base_fee=origin.block.base_fee,
        blob_base_fee=origin.block.blob_base_fee,
        hash=origin.block.hash,
        sequence_number=origin.sequence_number,
        batcher_hash=system.batcher_address.rjust(32, b"\0"),
        base_fee_scalar=system.base_fee_scalar,
        blob_base_fee_scalar=system.blob_base_fee_scalar,
        operator_fee_scalar=system.operator_fee_scalar,
        operator_fee_constant=system.operator_fee_constant,
        da_footprint_gas_scalar=system.da_footprint_gas_scalar if jovian else None,
    )
