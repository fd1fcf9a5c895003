"""What a flashblock must fulfil before the execution client is asked: the checks that need no execution.

Upstream looks at payload id, index and the presence of ``base`` only.  Here ``base`` must be what the forkchoice update
asked for, the forced transactions must come first, and a flashblock once received cannot change.
"""

import enum
from dataclasses import dataclass

from flashblocks.rollup_boost.assembly import HELD_FRAMES_MAX, Block
from flashblocks.wire.assembly import EXTRA_DATA_BYTES_HOLOCENE, EXTRA_DATA_BYTES_JOVIAN
from flashblocks.wire.engine import PayloadAttributes
from flashblocks.wire.flashblock import Flashblock, FlashblockBase
from flashblocks.wire.frames import FlashblockFrame

INDEX_MAX = 1_000


class Finding(enum.Enum):
    """What to do with a flashblock of the builder."""

    ACCEPT = "accept"
    DUPLICATE = "duplicate"
    HOLD = "hold"
    LATE = "late"
    REFUSE = "refuse"


@dataclass(frozen=True, slots=True)
class Inspection:
    """A finding; ``reason`` is one of few short texts (it labels a counter), ``detail`` says more."""

    finding: Finding
    reason: str = ""
    detail: str = ""


def inspect(block: Block, frame: FlashblockFrame, flashblock: Flashblock) -> Inspection:
    """Check a flashblock that carries this block's payload id."""
    if block.distrusted:
        return Inspection(Finding.LATE, "distrusted", block.distrusted)
    if not 0 <= frame.index <= INDEX_MAX:
        return _refuse("invalid_index", f"index {frame.index}")
    mismatch = _envelope_mismatch(block, frame, flashblock)
    if mismatch:
        return _refuse("frame_mismatch", mismatch)
    if frame.index < len(block.pieces):
        if block.pieces[frame.index].frame.digest == frame.digest:
            return Inspection(Finding.DUPLICATE, "duplicate")
        if not block.pieces[frame.index].own:
            # A builder that has not yet heard of another leader's flashblock; it will be told and start behind it.
            return Inspection(Finding.LATE, "superseded", f"index {frame.index} is committed from elsewhere")
        return _refuse("equivocation", f"index {frame.index} came twice with different content")
    if block.asked:
        return Inspection(Finding.LATE, "tail", "the payload was already asked for")
    if frame.index > len(block.pieces):
        if len(block.held) >= HELD_FRAMES_MAX:
            return _refuse("invalid_index", f"index {frame.index}, expected {len(block.pieces)}")
        return Inspection(Finding.HOLD, "missing_flashblock", f"index {frame.index}, expected {len(block.pieces)}")
    if flashblock.base is not None and block.attributes is not None:
        difference = base_difference(flashblock.base, block.parent_hash, block.attributes)
        if difference:
            return _refuse("base_mismatch", difference)
        forced = block.attributes.transactions
        if flashblock.diff.transactions[: len(forced)] != forced:
            return _refuse("base_mismatch", "the forced transactions do not come first")
    return Inspection(Finding.ACCEPT)


def base_difference(base: FlashblockBase, parent_hash: bytes, attributes: PayloadAttributes) -> str:
    """Name the first field of ``base`` that is not what the forkchoice update asked for; empty when all are."""
    wanted = {
        "parent_hash": parent_hash,
        "timestamp": attributes.timestamp,
        "prev_randao": attributes.prev_randao,
        "fee_recipient": attributes.fee_recipient,
        "gas_limit": attributes.gas_limit,
        "parent_beacon_block_root": attributes.parent_beacon_block_root,
    }
    for name, value in wanted.items():
        if getattr(base, name) != value:
            return f"base.{name} differs from the forkchoice update"
    return _extra_data_difference(base.extra_data, attributes)


def _extra_data_difference(extra_data: bytes, attributes: PayloadAttributes) -> str:
    jovian = attributes.min_base_fee is not None
    expected_length = EXTRA_DATA_BYTES_JOVIAN if jovian else EXTRA_DATA_BYTES_HOLOCENE
    if len(extra_data) != expected_length or extra_data[0] != int(jovian):
        return "base.extra_data has not the form of the fork"
    # Zero parameters ask for the chain's own constants, which only the execution client knows.
    if any(attributes.eip1559_params) and extra_data[1:9] != attributes.eip1559_params:
        return "base.extra_data differs from the forkchoice update"
    if jovian and int.from_bytes(extra_data[9:], "big") != attributes.min_base_fee:
        return "base.extra_data has another minimum base fee"
    return ""


def _envelope_mismatch(block: Block, frame: FlashblockFrame, flashblock: Flashblock) -> str:
    """The fields beside the body must be those in it: the ledger and the proxies read only the former."""
    if (frame.number, frame.index, frame.payload_id) != (flashblock.number, flashblock.index, flashblock.payload_id):
        return "number, index or payload id beside the body differ from those in it"
    if frame.block_hash != flashblock.diff.block_hash:
        return "the block hash beside the body differs from the one in it"
    if frame.parent_hash != block.parent_hash:
        return "the parent is not the head of the forkchoice update"
    if block.pieces and frame.number != block.number:
        return f"block number {frame.number}, the block's is {block.number}"
    return ""


def _refuse(reason: str, detail: str) -> Inspection:
    return Inspection(Finding.REFUSE, reason, detail)
