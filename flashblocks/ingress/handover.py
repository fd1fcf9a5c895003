"""What two of ours say on a kept link when one hands transactions over to the other: MessagePack, many at a time.

The giver numbers its transactions; the taker answers each number once, in any order, in messages of any size. A claimed
sender spares the taker the recovery; it is worth what the giver's credentials are worth, and the taker decides that.
"""

from collections.abc import Sequence

import msgspec

from flashblocks.wire.hexadecimal import WireError

PATH = "/flashblocks/v1/transactions"
MESSAGE_TRANSACTIONS_MAX = 512
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
ADDRESS_BYTES = 20
TAKEN = 0


class Handed(msgspec.Struct, frozen=True, array_like=True):
    """One transaction: its number on the link, its bytes, and what the giver knows of it (empty where nothing)."""

    number: int
    raw: bytes
    sender: bytes = b""  # as recovered by the giver
    caller: str = ""  # the address of the wallet that sent it
    traced: bool = False  # whether the giver records the root of its trace


class Outcome(msgspec.Struct, frozen=True, array_like=True):
    """What became of a number: `code` is TAKEN, or that of a JSON-RPC error whose text is `message`."""

    number: int
    code: int = TAKEN
    message: str = ""


_encoder = msgspec.msgpack.Encoder()
_handed = msgspec.msgpack.Decoder(tuple[Handed, ...])
_outcomes = msgspec.msgpack.Decoder(tuple[Outcome, ...])


def encode(message: Sequence[Handed] | Sequence[Outcome]) -> bytes:
    """The bytes of one message."""
    return _encoder.encode(message)


def decode_handed(message: bytes) -> tuple[Handed, ...]:
    """Read what was handed over; raises WireError."""
    try:
        handed = _handed.decode(message)
    except msgspec.MsgspecError as error:
        raise WireError(f"transactions: {error}") from None
    if len(handed) > MESSAGE_TRANSACTIONS_MAX:
        raise WireError(f"transactions: {len(handed)} in one message, at most {MESSAGE_TRANSACTIONS_MAX}")
    if any(len(each.sender) not in (0, ADDRESS_BYTES) for each in handed):
        raise WireError("transactions: a sender has 20 bytes")
    return handed


def decode_outcomes(message: bytes) -> tuple[Outcome, ...]:
    """Read the answers; raises WireError."""
    try:
        return _outcomes.decode(message)
    except msgspec.MsgspecError as error:
        raise WireError(f"outcomes: {error}") from None
