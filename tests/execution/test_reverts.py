"""Failed calls in geth's words."""

import pytest

from flashblocks.execution.reverts import revert_error, revert_reason


def error_string(text: bytes) -> bytes:
    padded = text + bytes(-len(text) % 32)
    return bytes.fromhex("08c379a0") + (32).to_bytes(32, "big") + len(text).to_bytes(32, "big") + padded


def panic(code: int) -> bytes:
    return bytes.fromhex("4e487b71") + code.to_bytes(32, "big")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (error_string(b"not enough"), "not enough"),
        (error_string(b""), ""),
        (panic(0x11), "arithmetic underflow or overflow"),
        (panic(0x99), "unknown panic code: 0x99"),
        (b"", None),
        (b"\x12\x34\x56\x78", None),
        (error_string(b"cut short")[:70], None),
        (bytes.fromhex("08c379a0") + b"\xff" * 64, None),
    ],
)
def test_reasons(data: bytes, reason: str | None) -> None:
    assert revert_reason(data) == reason


def test_errors() -> None:
    reverted = revert_error("execution reverted", error_string(b"no"))
    assert (reverted.code, str(reverted), reverted.data) == (
        3,
        "execution reverted: no",
        "0x" + error_string(b"no").hex(),
    )
    silent = revert_error("execution reverted", b"")
    assert (silent.code, str(silent), silent.data) == (3, "execution reverted", "0x")
    other = revert_error("out of gas", b"")
    assert (other.code, str(other), other.data) == (-32000, "out of gas", None)
