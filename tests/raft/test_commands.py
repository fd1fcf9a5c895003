"""The codec: golden bytes (they are on disk and on the wire), round trips, and garbage."""

import msgspec
import pytest

from raft.commands import Append, Claim, CommandError, Seal, SealBlock, decode_command, encode_command

GOLDEN = [
    (Claim(7, "sequencer-0"), "93a16307ab73657175656e6365722d30"),
    (
        Append(7, "a", b"12345678", 5, 0, b"p" * 32, b"h" * 32, b"d" * 32, b"body"),
        "9ba16107a161c40831323334353637380500c420"
        + "70" * 32
        + "c420"
        + "68" * 32
        + "c420"
        + "64" * 32
        + "c404626f6479a0",
    ),
    (Seal(7, "a", 5, b"12345678", 9, b"h" * 32), "97a17307a16105c408313233343536373809c420" + "68" * 32),
    (
        SealBlock(7, "a", 5, b"p" * 32, b"h" * 32, b"whole"),
        "97a16207a16105c420" + "70" * 32 + "c420" + "68" * 32 + "c40577686f6c65",
    ),
]


@pytest.mark.parametrize(("command", "encoded"), GOLDEN, ids=lambda value: type(value).__name__)
def test_the_bytes_of_a_command_do_not_change(command, encoded):
    assert encode_command(command).hex() == encoded
    assert decode_command(bytes.fromhex(encoded)) == command


def test_an_entry_of_before_it_named_its_trace_is_read_as_one_without():
    named = Append(7, "a", b"12345678", 5, 0, b"p" * 32, b"h" * 32, b"d" * 32, b"body", "00-1-2-01 ab")
    assert decode_command(encode_command(named)) == named
    old = "9a" + encode_command(msgspec.structs.replace(named, traceparent="")).hex()[2:-2]
    assert decode_command(bytes.fromhex(old)) == msgspec.structs.replace(named, traceparent="")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc0",
        b"\x93\xa1z\x01\xa1a",
        b"\x93\xa1c\xa1x\xa1a",
        b"\x92\xa1c\x01",
        encode_command(Claim(1, "a")) + b"\x00",
    ],
)
def test_anything_else_is_no_command(data):
    with pytest.raises(CommandError):
        decode_command(data)
