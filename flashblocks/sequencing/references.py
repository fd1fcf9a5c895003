"""Block references: what the op-node needs to know of a block to build on it and to report it.

The JSON spelling is op-node's (`optimism_syncStatus`): numbers are plain integers there, not hex quantities.
"""

from __future__ import annotations

from typing import Any

import msgspec

from flashblocks.sequencing.deposits import L1_INFO_TRANSACTION_TYPE, L1Info, decode_l1_info
from flashblocks.wire.engine import ExecutionPayload
from flashblocks.wire.hexadecimal import WireError, data, to_bytes, to_int


class BlockId(msgspec.Struct, frozen=True):
    """Number and hash of a block."""

    number: int
    hash: bytes

    def to_json(self) -> dict[str, Any]:
        """Spell it as op-node does."""
        return {"hash": data(self.hash), "number": self.number}


class L2BlockRef(msgspec.Struct, frozen=True, kw_only=True):
    """An L2 block with its L1 origin; `sequence_number` counts the blocks of one origin from 0."""

    hash: bytes
    number: int
    parent_hash: bytes
    timestamp: int
    l1_origin: BlockId
    sequence_number: int

    def to_json(self) -> dict[str, Any]:
        """Spell the reference as `optimism_syncStatus` does."""
        return {
            "hash": data(self.hash),
            "number": self.number,
            "parentHash": data(self.parent_hash),
            "timestamp": self.timestamp,
            "l1origin": self.l1_origin.to_json(),
            "sequenceNumber": self.sequence_number,
        }

    @property
    def id(self) -> BlockId:
        """Number and hash."""
        return BlockId(self.number, self.hash)


def reference_of_payload(payload: ExecutionPayload) -> L2BlockRef:
    """Reference of a payload, its origin read from the L1-attributes deposit; raises WireError where there is none."""
    if not payload.transactions:
        raise WireError("block has no L1-attributes deposit")
    info = decode_l1_info(payload.transactions[0])
    return _reference(payload.block_hash, payload.block_number, payload.parent_hash, payload.timestamp, info)


def reference_of_block(block: dict[str, Any], genesis_origin: BlockId) -> L2BlockRef:
    """Reference of a block as `eth_getBlockByNumber(_, true)` answers it; genesis has `genesis_origin` as its origin.

    Raises WireError naming the field that is wrong.
    """
    number = to_int(block.get("number"), "number")
    block_hash = to_bytes(block.get("hash"), 32, "hash")
    parent_hash = to_bytes(block.get("parentHash"), 32, "parentHash")
    timestamp = to_int(block.get("timestamp"), "timestamp")
    if number == 0:
        return L2BlockRef(
            hash=block_hash,
            number=0,
            parent_hash=parent_hash,
            timestamp=timestamp,
            l1_origin=genesis_origin,
            sequence_number=0,
        )
    transactions = block.get("transactions") or [None]
    first = transactions[0]
    if not isinstance(first, dict) or to_int(first.get("type"), "type") != L1_INFO_TRANSACTION_TYPE:
        raise WireError("block has no L1-attributes deposit")
    info = L1Info.from_calldata(to_bytes(first.get("input"), None, "input"))
    return _reference(block_hash, number, parent_hash, timestamp, info)


def _reference(block_hash: bytes, number: int, parent_hash: bytes, timestamp: int, info: L1Info) -> L2BlockRef:
    return L2BlockRef(
        hash=block_hash,
        number=number,
        parent_hash=parent_hash,
        timestamp=timestamp,
        l1_origin=BlockId(info.number, info.hash),
        sequence_number=info.sequence_number,
    )
