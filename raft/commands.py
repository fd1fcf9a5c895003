"""The ledger's commands, answers and events: frozen types and their MessagePack codec.

A command is what a leader proposes and what is stored in the Raft log; an answer is what the ledger
says to it; an event is what a node's shell is told once the command took effect. Tags are one character
because a command travels to every node, four times per flashblock.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

import msgspec

ENTRY_SIZE_BYTES_MAX: Final = 8 * 1024 * 1024
"""Largest encoded command; a 1 MB flashblock with receipts and balances stays well below it."""

TRACE_CONTEXT_CHARACTERS_MAX: Final = 8 * 1024
"""Longest trace context of an entry; a leader with more to say says nothing."""

PAYLOAD_ID_BYTES: Final = 8
HASH_BYTES: Final = 32
NODE_NAME_BYTES_MAX: Final = 64
NUMBER_MAX: Final = 2**63 - 1


class CommandError(ValueError):
    """Bytes that are no command of ours (a peer's fault, or a log of another version)."""


class Reason(StrEnum):
    """Why a command was refused; the value is what operators see in logs and metrics."""

    MALFORMED = "malformed"
    TOO_LARGE = "too_large"
    WRONG_DIGEST = "wrong_digest"
    STALE_EPOCH = "stale_epoch"
    UNCLAIMED_EPOCH = "unclaimed_epoch"
    WRONG_OWNER = "wrong_owner"
    WRONG_NUMBER = "wrong_number"
    WRONG_PARENT = "wrong_parent"
    NOT_SEALED = "not_sealed"
    OTHER_PAYLOAD = "other_payload"
    INDEX_GAP = "index_gap"
    CONFLICTING_DIGEST = "conflicting_digest"
    TOO_MANY_FLASHBLOCKS = "too_many_flashblocks"
    NOT_OPEN = "not_open"
    PREFIX_MISMATCH = "prefix_mismatch"
    FLASHBLOCKS_COMMITTED = "flashblocks_committed"
    ALREADY_SEALED = "already_sealed"
    # Below: said by the node before the command entered the log, so it certainly had no effect.
    NOT_LEADER = "not_leader"
    TRANSFERRING = "transferring"
    QUEUE_FULL = "queue_full"
    NOT_CAUGHT_UP = "not_caught_up"
    UNKNOWN_TARGET = "unknown_target"
    MEMBERSHIP = "membership"


class Claim(msgspec.Struct, frozen=True, tag="c", array_like=True):
    """A new leader's first entry: `epoch` must be greater than the ledger's; `node` becomes its owner."""

    epoch: int
    node: str


class Append(msgspec.Struct, frozen=True, tag="a", array_like=True):
    """One flashblock of the open block, or index 0 of the next one.

    `block_hash` is the hash of the block made of the flashblocks 0..index; `digest` is sha256 of `body`;
    `body` is the complete flashblock as MessagePack, opaque to the ledger. `traceparent` is the frame's, so that
    followers and a later leader join its traces; records of before it was there end at `body` and are read as well.
    """

    epoch: int
    node: str
    payload_id: bytes
    number: int
    index: int
    parent_hash: bytes
    block_hash: bytes
    digest: bytes
    body: bytes
    traceparent: str = ""


class Seal(msgspec.Struct, frozen=True, tag="s", array_like=True):
    """Seal the open block by reference: exactly its committed flashblocks 0..last_index, whose hash is `block_hash`."""

    epoch: int
    node: str
    number: int
    payload_id: bytes
    last_index: int
    block_hash: bytes


class SealBlock(msgspec.Struct, frozen=True, tag="b", array_like=True):
    """Seal a fallback block with its whole payload, where no flashblock of that height was committed."""

    epoch: int
    node: str
    number: int
    parent_hash: bytes
    block_hash: bytes
    payload: bytes


Command = Claim | Append | Seal | SealBlock


class Accepted(msgspec.Struct, frozen=True):
    """The command is committed and in force. `duplicate`: it already was, nothing changed."""

    duplicate: bool = False


class Refused(msgspec.Struct, frozen=True):
    """The command certainly has no effect, now or later."""

    reason: Reason
    detail: str = ""


Answer = Accepted | Refused


class Claimed(msgspec.Struct, frozen=True):
    """`node` owns the ledger from here on; appends of older epochs are refused."""

    epoch: int
    node: str


class Appended(msgspec.Struct, frozen=True):
    """A flashblock was committed: it may be published by the owner and applied by everybody else."""

    epoch: int
    node: str
    payload_id: bytes
    number: int
    index: int
    parent_hash: bytes
    block_hash: bytes
    digest: bytes
    body: bytes
    traceparent: str = ""


class Sealed(msgspec.Struct, frozen=True):
    """A block became the head; read its contents with `sealed(number)`. `fallback`: it has no flashblocks."""

    epoch: int
    node: str
    number: int
    block_hash: bytes
    fallback: bool


class Restored(msgspec.Struct, frozen=True):
    """The ledger was replaced by a snapshot (this node was far behind, or restarted): read it anew."""

    epoch: int
    node: str
    number: int
    block_hash: bytes


Event = Claimed | Appended | Sealed | Restored

_encoder = msgspec.msgpack.Encoder()
_decoder: msgspec.msgpack.Decoder[Command] = msgspec.msgpack.Decoder(Command)


def encode_command(command: Command) -> bytes:
    """MessagePack array `[tag, field, …]`, the bytes stored in the Raft log."""
    return _encoder.encode(command)


def decode_command(data: bytes) -> Command:
    """Inverse of `encode_command`; raises CommandError for anything else."""
    try:
        return _decoder.decode(data)
    except msgspec.MsgspecError as error:
        raise CommandError(f"not a ledger command: {error}") from error
