"""What gas costs: `eth_gasPrice`, `eth_maxPriorityFeePerGas` and `eth_feeHistory` from the blocks themselves."""

from collections.abc import Sequence

from flashblocks.execution.chain import ChainBlock
from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.fees import next_base_fee
from flashblocks.execution.header import Header
from flashblocks.execution.receipt import Receipt
from flashblocks.execution.transaction import Transaction
from flashblocks.wire.hexadecimal import quantity
from flashblocks.wire.jsonrpc import INVALID_PARAMS, RpcError

FEE_HISTORY_BLOCKS_MAX = 1_024
PERCENTILES_MAX = 100
SUGGESTED_TIP_WEI_MIN = 1_000_000  # op-geth's default floor for its suggestion
SUGGESTED_TIP_PERCENTILE = 50
FULL_BLOCK_RATIO = 0.9  # only in blocks fuller than this do tips decide who gets in


def suggested_tip(blocks: Sequence[ChainBlock]) -> int:
    """A priority fee (wei per gas) that gets in: the floor; where recent blocks were full, their median and a tenth.

    That is op-geth's rule for rollups: while there is room, nobody needs to outbid anybody.
    """
    tip = SUGGESTED_TIP_WEI_MIN
    for block in blocks:
        if block.header.gas_used > FULL_BLOCK_RATIO * block.header.gas_limit:
            median = rewards(block.header, block.transactions, block.receipts, [SUGGESTED_TIP_PERCENTILE])[0]
            tip = max(tip, median + median // 10)
    return tip


def check_percentiles(values: Sequence[float]) -> None:
    """Raise RpcError unless they are at most 100, within 0..100 and ascending (as every client demands)."""
    if len(values) > PERCENTILES_MAX:
        raise RpcError(INVALID_PARAMS, f"over the query limit {PERCENTILES_MAX}")
    for position, value in enumerate(values):
        if not 0 <= value <= 100:
            raise RpcError(INVALID_PARAMS, f"invalid reward percentile: {value}")
        if position and value < values[position - 1]:
            raise RpcError(
                INVALID_PARAMS,
                f"invalid reward percentile: #{position - 1}:{values[position - 1]} >= #{position}:{value}",
            )


def rewards(
    header: Header, transactions: Sequence[Transaction], receipts: Sequence[Receipt], percentiles: Sequence[float]
) -> list[int]:
    """The tips (wei per gas) at these percentiles of the block's gas, cheapest first; zeros for an empty block."""
    paid = sorted(
        (transaction.effective_gas_price(header.base_fee_per_gas) - header.base_fee_per_gas, receipt.gas_used)
        for transaction, receipt in zip(transactions, receipts, strict=True)
        if not transaction.is_deposit
    )
    if not paid:
        return [0] * len(percentiles)
    total = sum(gas for _, gas in paid)
    found: list[int] = []
    position, passed = 0, paid[0][1]
    for percentile in percentiles:
        threshold = total * percentile / 100
        while passed < threshold and position < len(paid) - 1:
            position += 1
            passed += paid[position][1]
        found.append(paid[position][0])
    return found


def fee_history(spec: ChainSpec, blocks: Sequence[ChainBlock], percentiles: Sequence[float]) -> dict[str, object]:
    """The answer of eth_feeHistory for consecutive blocks, oldest first; the base fee after the last is added."""
    after = next_base_fee(spec, blocks[-1].header)
    answer: dict[str, object] = {
        "oldestBlock": quantity(blocks[0].number),
        "baseFeePerGas": [quantity(block.header.base_fee_per_gas) for block in blocks] + [quantity(after)],
        "gasUsedRatio": [block.header.gas_used / block.header.gas_limit for block in blocks],
        "baseFeePerBlobGas": ["0x1"] * (len(blocks) + 1),
        "blobGasUsedRatio": [0.0] * len(blocks),
    }
    if percentiles:
        answer["reward"] = [
            [quantity(tip) for tip in rewards(block.header, block.transactions, block.receipts, percentiles)]
            for block in blocks
        ]
    return answer
