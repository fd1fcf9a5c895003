"""What a transaction should offer: eth_feeHistory, and the tip that recent blocks paid (geth's gas price oracle)."""

from collections.abc import Sequence
from typing import Any, Protocol

from flashblocks.execution.chain import ChainBlock
from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.fees import next_base_fee
from flashblocks.execution.header import Header
from flashblocks.execution.receipt import Receipt
from flashblocks.execution.transaction import Transaction
from flashblocks.wire.hexadecimal import WireError, quantity

FEE_HISTORY_BLOCKS_MAX = 1_024
PERCENTILES_MAX = 100
TIP_BLOCKS = 20
TIP_PERCENTILE = 60
TIP_WEI_DEFAULT = 1_000_000  # op-geth's minimum suggestion (MinSuggestedPriorityFee)
TIP_WEI_MAX = 500 * 10**9


def read_percentiles(value: Any) -> list[float]:
    """The rewardPercentiles of eth_feeHistory; raises WireError."""
    if value is None:
        return []
    if not isinstance(value, list) or len(value) > PERCENTILES_MAX:
        raise WireError(f"reward percentiles: expected an array of at most {PERCENTILES_MAX}")
    read: list[float] = []
    for each in value:
        if isinstance(each, bool) or not isinstance(each, int | float) or not 0 <= each <= 100:
            raise WireError(f"invalid reward percentile: {each}")
        if read and each < read[-1]:
            raise WireError(f"invalid reward percentile: {each} after {read[-1]}")
        read.append(each)
    return read


class FeeBlock(Protocol):
    """What the fees of a block are read from, be it sealed or open."""

    @property
    def number(self) -> int:
        """The height."""

    @property
    def header(self) -> Header:
        """The header."""

    @property
    def transactions(self) -> tuple[Transaction, ...]:
        """In order."""

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """One for each."""


def fee_history(spec: ChainSpec, blocks: Sequence[FeeBlock], percentiles: Sequence[float]) -> dict[str, Any]:
    """The answer for consecutive `blocks`, oldest first, at least one; the last base fee is the next block's."""
    answer: dict[str, Any] = {
        "oldestBlock": quantity(blocks[0].number),
        "baseFeePerGas": [
            *(quantity(block.header.base_fee_per_gas) for block in blocks),
            quantity(next_base_fee(spec, blocks[-1].header)),
        ],
        "gasUsedRatio": [block.header.gas_used / block.header.gas_limit for block in blocks],
        "baseFeePerBlobGas": ["0x1"] * (len(blocks) + 1),
        "blobGasUsedRatio": [block.header.blob_gas_used / block.header.gas_limit for block in blocks],
    }
    if percentiles:
        answer["reward"] = [[quantity(tip) for tip in _rewards(block, percentiles)] for block in blocks]
    return answer


def _rewards(block: FeeBlock, percentiles: Sequence[float]) -> list[int]:
    """The tip at each percentile of the block's gas, cheapest first (deposits pay none and are left out)."""
    base_fee = block.header.base_fee_per_gas
    paid = sorted(
        (tx.effective_gas_price(base_fee) - base_fee, receipt.gas_used)
        for tx, receipt in zip(block.transactions, block.receipts, strict=True)
        if not tx.is_deposit
    )
    if not paid:
        return [0] * len(percentiles)
    total = sum(gas for _, gas in paid)
    rewards = []
    position, seen = 0, paid[0][1]
    for percentile in percentiles:
        while seen < total * percentile / 100 and position < len(paid) - 1:
            position += 1
            seen += paid[position][1]
        rewards.append(paid[position][0])
    return rewards


def suggested_tip(blocks: Sequence[ChainBlock]) -> int:
    """The tip in wei that a transaction should offer: what most of the recent ones paid where blocks are filling up.

    As in op-geth, blocks with plenty of room suggest the minimum.
    """
    tips: list[int] = []
    for block in blocks:
        base_fee = block.header.base_fee_per_gas
        if block.header.gas_used * 2 < block.header.gas_limit:
            continue
        tips += [tx.effective_gas_price(base_fee) - base_fee for tx in block.transactions if not tx.is_deposit]
    if not tips:
        return TIP_WEI_DEFAULT
    tips.sort()
    return min(max(tips[(len(tips) - 1) * TIP_PERCENTILE // 100], TIP_WEI_DEFAULT), TIP_WEI_MAX)
