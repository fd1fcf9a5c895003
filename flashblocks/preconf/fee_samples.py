"""What recent blocks tell about fees: their transactions as uses of resources, cut where their flashblocks ended.

A sealed block does not say which transactions came together, so the ends are noted while flashblocks are shown.
"""

from collections.abc import Sequence

from flashblocks.execution.chain import ChainBlock
from flashblocks.execution.receipt import Receipt
from flashblocks.execution.transaction import Transaction
from flashblocks.preconf.events import Event, FlashblockShown
from flashblocks.preconf.priority_fee import BLOCKS_SAMPLED_MAX, SampledBlock, Use
from flashblocks.preconf.snapshot import PendingSnapshot


class FlashblockEnds:
    """For the newest blocks: the hash of each shown flashblock's block so far, and where its transactions ended."""

    def __init__(self) -> None:
        self._shown: dict[int, tuple[bytes, list[int], bytes]] = {}  # by height: payload id, ends, newest block hash

    def event(self, event: Event) -> None:
        """Note a flashblock that is shown; anything else is of no interest."""
        if not isinstance(event, FlashblockShown):
            return
        snapshot = event.snapshot
        payload_id, ends, _ = self._shown.pop(snapshot.number, (b"", [], b""))
        ends = ends[: snapshot.index] if payload_id == snapshot.payload_id else []
        if len(ends) == snapshot.index:  # after one that was not shown, nothing of this block is known
            self._shown[snapshot.number] = (
                snapshot.payload_id,
                [*ends, len(snapshot.transactions)],
                snapshot.header.hash,
            )
        while len(self._shown) > BLOCKS_SAMPLED_MAX:
            del self._shown[next(iter(self._shown))]

    def of(self, number: int, block_hash: bytes) -> tuple[int, ...]:
        """The ends within exactly this block; nothing where they are not known."""
        _, ends, newest = self._shown.get(number, (b"", [], b""))
        return tuple(ends) if newest == block_hash else ()


def sampled(block: ChainBlock | PendingSnapshot, ends: tuple[int, ...], *, with_data: bool) -> SampledBlock:
    """A block as uses of gas and, where its fork prices data (Jovian), of the DA footprint, which shares the limit."""
    header = block.header
    resources = 2 if with_data else 1
    return SampledBlock(
        _uses(block.transactions, block.receipts, header.base_fee_per_gas, with_data),
        (header.gas_limit,) * resources,
        ends,
    )


def _uses(
    transactions: Sequence[Transaction], receipts: Sequence[Receipt], base_fee: int, with_data: bool
) -> tuple[Use, ...]:
    return tuple(
        Use(
            0 if tx.is_deposit else tx.effective_gas_price(base_fee) - base_fee,
            (receipt.gas_used, receipt.blob_gas_used or 0) if with_data else (receipt.gas_used,),
            tx.is_deposit,
        )
        for tx, receipt in zip(transactions, receipts, strict=True)
    )
