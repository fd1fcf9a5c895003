"""From what a proxy sends to an `Arrival`: the frame is compared with its own body, the payload id with the attributes.

A frame's fields stand beside its body so that hops need not open it; a node that executes it believes the body alone.
"""

from collections import OrderedDict

import msgspec

from flashblocks.preconf.facts import Arrival
from flashblocks.wire.assembly import attributes_of
from flashblocks.wire.flashblock import Flashblock, body_digest, decode_body, encode_body
from flashblocks.wire.flashblock_json import decode_json
from flashblocks.wire.frames import FlashblockFrame
from flashblocks.wire.hexadecimal import WireError
from flashblocks.wire.keccak import keccak256
from flashblocks.wire.payload_id import payload_id

ZERO_EIP1559_PARAMS = bytes(8)
PAYLOADS_REMEMBERED_MAX = 64


def arrival_of(frame: FlashblockFrame) -> Arrival:
    """Open a frame of one of our proxies; raises WireError when it contradicts its body."""
    flashblock = decode_body(frame.body)
    claimed = (frame.number, frame.index, frame.payload_id, frame.block_hash)
    if claimed != (flashblock.number, flashblock.index, flashblock.payload_id, flashblock.diff.block_hash):
        raise WireError("frame: number, index, payload id or block hash differ from the body's")
    if flashblock.base is not None and frame.parent_hash != flashblock.base.parent_hash:
        raise WireError("frame: the parent hash differs from the body's")
    if flashblock.base is not None and not names_its_payload(flashblock):
        raise WireError("frame: the payload id is not that of the attributes")
    return _arrival(flashblock, frame.epoch, frame.parent_hash, frame.digest, frame.traceparent)


def names_its_payload(first: Flashblock) -> bool:
    """Whether the payload id of an index-0 flashblock is the hash of its parent and attributes, whatever its version.

    Two attributes leave no trace in the block, so both of their values are tried: `noTxPool`, and EIP-1559 parameters
    of zero (the header then has the chain's constants).
    """
    assert first.base is not None
    seen = attributes_of(first)
    return any(
        payload_id(first.base.parent_hash, msgspec.structs.replace(seen, no_tx_pool=no_tx_pool, eip1559_params=params))[
            1:
        ]
        == first.payload_id[1:]
        for params in (seen.eip1559_params, ZERO_EIP1559_PARAMS)
        for no_tx_pool in (False, True)
    )


class ForeignIntake:
    """Reads the public JSON of other people's proxies: no epoch, and the parent at index 0 only: it is remembered."""

    def __init__(self) -> None:
        self._parents: OrderedDict[bytes, bytes] = OrderedDict()

    def arrival_of(self, text: str | bytes) -> Arrival:
        """Raises WireError for what is no flashblock, or one of a payload whose index 0 was never seen."""
        flashblock = decode_json(text)
        if flashblock.base is not None:
            self._parents[flashblock.payload_id] = flashblock.base.parent_hash
            if len(self._parents) > PAYLOADS_REMEMBERED_MAX:
                self._parents.popitem(last=False)
        parent_hash = self._parents.get(flashblock.payload_id)
        if parent_hash is None:
            raise WireError("flashblock: index 0 of its payload was not seen")
        return _arrival(flashblock, 0, parent_hash, body_digest(encode_body(flashblock)), "")


def _arrival(flashblock: Flashblock, epoch: int, parent_hash: bytes, digest: bytes, traceparent: str) -> Arrival:
    return Arrival(
        epoch=epoch,
        number=flashblock.number,
        index=flashblock.index,
        payload_id=flashblock.payload_id,
        parent_hash=parent_hash,
        block_hash=flashblock.diff.block_hash,
        digest=digest,
        transactions=tuple(keccak256(raw) for raw in flashblock.diff.transactions),
        flashblock=flashblock,
        traceparent=traceparent,
    )
