"""What a block and its transactions cost: base fee, L1 data fee, operator fee, DA footprint (specs, exec-engine.md)."""

import msgspec

from flashblocks.execution.chain_spec import ChainSpec, Rules
from flashblocks.execution.errors import InvalidAttributes, InvalidBlock
from flashblocks.execution.header import Header
from flashblocks.execution.journal import Journal


def predeploy(number: int) -> bytes:
    """The address 0x4200…00NN."""
    return b"\x42" + number.to_bytes(19, "big")


SEQUENCER_FEE_VAULT = predeploy(0x11)
L1_BLOCK = predeploy(0x15)
MESSAGE_PASSER = predeploy(0x16)
BASE_FEE_VAULT = predeploy(0x19)
L1_FEE_VAULT = predeploy(0x1A)
OPERATOR_FEE_VAULT = predeploy(0x1B)

# Fjord: estimated L1 size = max(100 bytes, 0.8365 * fastlz − 42.5856), here in millionths of a byte.
L1_SIZE_INTERCEPT = 42_585_600
L1_SIZE_COEFFICIENT = 836_500
L1_SIZE_MINIMUM = 100_000_000
MILLION = 10**6
GAS_ZERO_BYTE, GAS_NONZERO_BYTE = 4, 16

OPERATOR_FEE_SCALAR_UNIT = 10**6  # Isthmus
OPERATOR_FEE_JOVIAN_FACTOR = 100
DA_FOOTPRINT_GAS_SCALAR_DEFAULT = 400

HOLOCENE_EXTRA_DATA_BYTES = 9
JOVIAN_EXTRA_DATA_BYTES = 17


class L1Parameters(msgspec.Struct, frozen=True):
    """What the L1Block predeploy says once the block's first transaction has run. Fees are wei per L1 gas."""

    base_fee: int
    blob_base_fee: int
    base_fee_scalar: int
    blob_base_fee_scalar: int
    operator_fee_scalar: int
    operator_fee_constant: int
    da_footprint_gas_scalar: int  # gas per byte; 0 before Jovian


def read_l1_parameters(state: Journal, rules: Rules) -> L1Parameters:
    """Read the L1Block predeploy (its storage layout: L1Block.json of contracts-bedrock)."""
    scalars = state.get_storage(L1_BLOCK, 3)
    operator = state.get_storage(L1_BLOCK, 8) if rules.isthmus else 0
    footprint = 0
    if rules.jovian:
        footprint = (operator >> 96) & 0xFFFF or DA_FOOTPRINT_GAS_SCALAR_DEFAULT
    return L1Parameters(
        base_fee=state.get_storage(L1_BLOCK, 1),
        blob_base_fee=state.get_storage(L1_BLOCK, 7),
        base_fee_scalar=(scalars >> 96) & 0xFFFFFFFF,
        blob_base_fee_scalar=(scalars >> 64) & 0xFFFFFFFF,
        operator_fee_scalar=(operator >> 64) & 0xFFFFFFFF,
        operator_fee_constant=operator & 0xFFFFFFFFFFFFFFFF,
        da_footprint_gas_scalar=footprint,
    )


def estimated_l1_size(fastlz_size: int) -> int:
    """Fjord's estimate of a transaction's share of an L1 batch, in millionths of a byte."""
    return max(L1_SIZE_MINIMUM, L1_SIZE_COEFFICIENT * fastlz_size - L1_SIZE_INTERCEPT)


def l1_gas_used(fastlz_size: int) -> int:
    """The receipt's l1GasUsed: the estimated size at 16 gas a byte."""
    return estimated_l1_size(fastlz_size) * 16 // MILLION


def l1_fee(fastlz_size: int, parameters: L1Parameters) -> int:
    """The fee for a transaction's data on L1, in wei (Fjord)."""
    return estimated_l1_size(fastlz_size) * _l1_price(parameters) // (MILLION * MILLION)


def _l1_price(parameters: L1Parameters) -> int:
    """Wei per sixteenth of a million calldata bytes."""
    calldata = 16 * parameters.base_fee_scalar * parameters.base_fee
    return calldata + parameters.blob_base_fee_scalar * parameters.blob_base_fee


def calldata_gas(raw: bytes) -> int:
    """What a transaction's bytes would cost as calldata on L1: the measure of before Fjord."""
    zeros = raw.count(0)
    return GAS_ZERO_BYTE * zeros + GAS_NONZERO_BYTE * (len(raw) - zeros)


def ecotone_l1_fee(raw: bytes, parameters: L1Parameters) -> int:
    """The fee for a transaction's data on L1, in wei (Ecotone, before Fjord)."""
    return calldata_gas(raw) * _l1_price(parameters) // (16 * MILLION)


def operator_fee(gas: int, parameters: L1Parameters, rules: Rules) -> int:
    """The chain operator's fee for `gas`, in wei: scaled by a millionth in Isthmus, by a hundred in Jovian."""
    if not rules.isthmus:
        return 0
    if rules.jovian:
        scaled = gas * parameters.operator_fee_scalar * OPERATOR_FEE_JOVIAN_FACTOR
    else:
        scaled = gas * parameters.operator_fee_scalar // OPERATOR_FEE_SCALAR_UNIT
    return scaled + parameters.operator_fee_constant


def da_footprint(fastlz_size: int, parameters: L1Parameters) -> int:
    """The gas that a transaction's data uses of the block's DA budget (Jovian); 0 before."""
    return estimated_l1_size(fastlz_size) // MILLION * parameters.da_footprint_gas_scalar


def next_base_fee(spec: ChainSpec, parent: Header) -> int:
    """The base fee of the block after `parent`, in wei (EIP-1559 with Holocene's parameters; Jovian's minimum)."""
    denominator, elasticity, minimum = decode_extra_data(spec, parent)
    target = parent.gas_limit // elasticity
    metered = parent.gas_used
    if spec.is_jovian(parent.timestamp):
        metered = max(metered, parent.blob_gas_used)
    fee = parent.base_fee_per_gas
    if metered > target:
        fee += max(fee * (metered - target) // target // denominator, 1)
    elif metered < target:
        fee = max(fee - fee * (target - metered) // target // denominator, 0)
    return max(fee, minimum)


def decode_extra_data(spec: ChainSpec, header: Header) -> tuple[int, int, int]:
    """(denominator, elasticity, minimum base fee in wei) out of a header; raises InvalidBlock when they are none.

    Before Holocene they are the chain's constants, and the header carries nothing.
    """
    extra = header.extra_data
    if not spec.is_holocene(header.timestamp):
        if extra:
            raise InvalidBlock(f"extra data 0x{extra.hex()} before Holocene")
        return spec.eip1559_denominator, spec.eip1559_elasticity, 0
    jovian = spec.is_jovian(header.timestamp)
    size = JOVIAN_EXTRA_DATA_BYTES if jovian else HOLOCENE_EXTRA_DATA_BYTES
    if len(extra) != size or extra[0] != int(jovian):
        raise InvalidBlock(f"extra data 0x{extra.hex()} is not the EIP-1559 parameters of this fork")
    denominator, elasticity = int.from_bytes(extra[1:5], "big"), int.from_bytes(extra[5:9], "big")
    if not denominator or not elasticity:
        raise InvalidBlock("extra data has a zero EIP-1559 denominator or elasticity")
    return denominator, elasticity, int.from_bytes(extra[9:], "big")


def encode_extra_data(spec: ChainSpec, timestamp: int, eip1559_params: bytes, min_base_fee: int | None) -> bytes:
    """The header's extra data for payload attributes; all-zero parameters mean the chain's constants."""
    if not spec.is_holocene(timestamp):
        if any(eip1559_params) or min_base_fee is not None:
            raise InvalidAttributes("eip1559Params and minBaseFee before their forks")
        return b""
    if len(eip1559_params) != 8:
        raise InvalidAttributes("eip1559Params must be 8 bytes since Holocene")
    denominator, elasticity = int.from_bytes(eip1559_params[:4], "big"), int.from_bytes(eip1559_params[4:], "big")
    if denominator == 0 and elasticity == 0:
        denominator, elasticity = spec.eip1559_denominator, spec.eip1559_elasticity
    elif denominator == 0 or elasticity == 0:
        raise InvalidAttributes("eip1559Params must both be zero or both not")
    extra = denominator.to_bytes(4, "big") + elasticity.to_bytes(4, "big")
    if not spec.is_jovian(timestamp):
        if min_base_fee is not None:
            raise InvalidAttributes("minBaseFee before Jovian")
        return b"\0" + extra
    if min_base_fee is None:
        raise InvalidAttributes("minBaseFee is missing since Jovian")
    return b"\1" + extra + min_base_fee.to_bytes(8, "big")
