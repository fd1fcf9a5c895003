"""The messages on the link between those who hand transactions over: their bytes, and what is refused."""

import msgspec
import pytest

from flashblocks.ingress.handover import (
    MESSAGE_TRANSACTIONS_MAX,
    Handed,
    Outcome,
    decode_handed,
    decode_outcomes,
    encode,
)
from flashblocks.wire.hexadecimal import WireError


def test_what_is_handed_over_comes_out_as_it_went_in() -> None:
    handed = (Handed(7, b"\x02raw", b"\x11" * 20, "10.0.0.1", True), Handed(8, b"\x02other"))
    assert decode_handed(encode(handed)) == handed


def test_the_bytes_on_the_wire() -> None:
    expected = "919507c4020102c400a0c2"
    assert encode((Handed(7, b"\x01\x02"),)).hex() == expected
    assert encode((Outcome(7), Outcome(8, -32000, "no"))).hex() == "92930700a09308d18300a26e6f"


def test_answers_come_out_as_they_went_in() -> None:
    outcomes = (Outcome(1), Outcome(2, -32000, "nonce too low"))
    assert decode_outcomes(encode(outcomes)) == outcomes


@pytest.mark.parametrize(
    "message",
    [
        b"",
        b"\xff",
        msgspec.msgpack.encode({"number": 1}),
        msgspec.msgpack.encode([[1]]),
        msgspec.msgpack.encode([[1, b"raw", b"short"]]),
        encode([Handed(n, b"") for n in range(MESSAGE_TRANSACTIONS_MAX + 1)]),
    ],
)
def test_what_is_none_is_refused(message: bytes) -> None:
    with pytest.raises(WireError, match="transactions"):
        decode_handed(message)


def test_answers_that_are_none_are_refused() -> None:
    with pytest.raises(WireError, match="outcomes"):
        decode_outcomes(b"\x91\x01")
