"""The stand-in for the EVM: real flashblock bodies and payloads, whose state root is a hash chain over transactions.

py-evm would cost milliseconds a flashblock, so a schedule would take minutes. What the high-availability rules need of
execution is kept: the same transactions in the same order on the same parent give the same roots and block hash; any
other order, transaction or parent gives another; a transaction fits once (a nonce per sender); deposits belong into
index 0. Everything is encoded and decoded by the real wire code.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from hashlib import sha256
from typing import NamedTuple

from flashblocks.wire.assembly import assemble
from flashblocks.wire.engine import Envelope, PayloadAttributes
from flashblocks.wire.flashblock import (
    Flashblock,
    FlashblockBase,
    FlashblockDiff,
    FlashblockMetadata,
    decode_body,
    encode_body,
)
from flashblocks.wire.frames import FlashblockFrame
from flashblocks.wire.frames import frame_of as frame_around
from flashblocks.wire.keccak import keccak256

DEPOSIT_TYPE = 0x7E
GAS_PER_TRANSACTION = 21_000
BASE_FEE_WEI = 1_000_000_000
NO_BLOOM = bytes(256)
NO_WITHDRAWALS = bytes(32)
BODIES_REMEMBERED_MAX = 4096


class InvalidTransaction(Exception):
    """It does not fit on this state: its nonce was used, or is not there yet."""


class State(NamedTuple):
    """The state after some transactions: a hash chain, and the next nonce of every sender."""

    root: bytes
    nonces: dict[int, int]


GENESIS_STATE = State(sha256(b"genesis").digest(), {})


class Header(NamedTuple):
    """What the rest of the block stands on: the open block before any transaction."""

    number: int
    parent_hash: bytes
    timestamp: int
    prev_randao: bytes
    fee_recipient: bytes
    gas_limit: int
    extra_data: bytes
    parent_beacon_block_root: bytes

    def block_hash(self, state: State) -> bytes:
        """The hash of the block with that state after it."""
        place = self.number.to_bytes(8, "big") + self.timestamp.to_bytes(8, "big")
        return sha256(place + self.parent_hash + self.prev_randao + self.extra_data + state.root).digest()


class Block(NamedTuple):
    """A block that was executed here; `envelope` is None for the genesis block."""

    number: int
    hash: bytes
    parent_hash: bytes
    timestamp: int
    state: State
    envelope: Envelope | None

    @property
    def transactions(self) -> tuple[bytes, ...]:
        """The raw transactions."""
        return () if self.envelope is None else self.envelope.payload.transactions


def transfer(sender: int, nonce: int) -> bytes:
    """A user's transaction, as large as a small transfer."""
    return b"\x02" + sender.to_bytes(2, "big") + nonce.to_bytes(4, "big") + bytes(100)


def sender_and_nonce(raw: bytes) -> tuple[int, int]:
    """Who sent a transaction, and which of his it is."""
    return int.from_bytes(raw[1:3], "big"), int.from_bytes(raw[3:7], "big")


@lru_cache(maxsize=BODIES_REMEMBERED_MAX)
def transaction_hash(raw: bytes) -> bytes:
    """Keccak-256, as on every chain."""
    return keccak256(raw)


@lru_cache(maxsize=BODIES_REMEMBERED_MAX)
def opened(body: bytes) -> Flashblock:
    """A body, decoded by the real code (once for all nodes of a run)."""
    return decode_body(body)


def execute(state: State, transactions: Sequence[bytes]) -> State:
    """The state after these transactions; raises InvalidTransaction."""
    root, nonces = state
    for raw in transactions:
        root = sha256(root + raw).digest()
        if raw[0] == DEPOSIT_TYPE:
            continue
        sender, nonce = sender_and_nonce(raw)
        if nonces.get(sender, 0) != nonce:
            raise InvalidTransaction(f"sender {sender}: nonce {nonce}, expected {nonces.get(sender, 0)}")
        if nonces is state.nonces:
            nonces = dict(nonces)
        nonces[sender] = nonce + 1
    return State(root, nonces)


def header_of(number: int, parent_hash: bytes, attributes: PayloadAttributes) -> Header:
    """The block that these attributes open."""
    return Header(
        number,
        parent_hash,
        attributes.timestamp,
        attributes.prev_randao,
        attributes.fee_recipient,
        attributes.gas_limit,
        b"\0" + attributes.eip1559_params,
        attributes.parent_beacon_block_root,
    )


def header_of_base(base: FlashblockBase) -> Header:
    """The block that an index 0 opens."""
    return Header(
        base.block_number,
        base.parent_hash,
        base.timestamp,
        base.prev_randao,
        base.fee_recipient,
        base.gas_limit,
        base.extra_data,
        base.parent_beacon_block_root,
    )


def flashblock(
    header: Header, payload_id: bytes, index: int, state: State, so_far: int, transactions: Sequence[bytes]
) -> Flashblock:
    """The flashblock of these transactions; `state` is that after them, `so_far` counts those of the whole block."""
    base = None
    if index == 0:
        base = FlashblockBase(
            header.parent_beacon_block_root,
            header.parent_hash,
            header.fee_recipient,
            header.prev_randao,
            header.number,
            header.gas_limit,
            header.timestamp,
            header.extra_data,
            BASE_FEE_WEI,
        )
    diff = FlashblockDiff(
        state.root,
        state.root,
        NO_BLOOM,
        so_far * GAS_PER_TRANSACTION,
        header.block_hash(state),
        tuple(transactions),
        NO_WITHDRAWALS,
    )
    return Flashblock(payload_id, index, base, diff, FlashblockMetadata(header.number))


def frame_of(made: Flashblock, parent_hash: bytes) -> FlashblockFrame:
    """The frame around a flashblock, its body encoded by the real code."""
    return frame_around(made, encode_body(made), parent_hash)


def envelope_of(flashblocks: Sequence[Flashblock]) -> Envelope:
    """The payload of these flashblocks."""
    return assemble(flashblocks)
