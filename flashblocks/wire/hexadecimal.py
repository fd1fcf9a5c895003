"""Hex as JSON-RPC spells it: quantities without leading zeros, data with every byte (execution-apis)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class WireError(ValueError):
    """The peer sent something that is not the format it claims to be; the text says what and where."""


def quantity(value: int) -> str:
    """Spell a non-negative integer as a QUANTITY: 0 is "0x0", no leading zeros."""
    return hex(value)


def data(value: bytes) -> str:
    """Spell bytes as DATA: two digits a byte, "0x" when empty."""
    return "0x" + value.hex()


def to_int(value: Any, name: str = "quantity") -> int:
    """Read a QUANTITY; a plain JSON integer is accepted too, as op-node writes minBaseFee so.

    Raises WireError for anything else, negative numbers and booleans included.
    """
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value[:2] in ("0x", "0X") and len(value) > 2 and "_" not in value:
        try:
            return int(value[2:], 16)
        except ValueError:
            pass
    raise WireError(f"{name}: expected a hex quantity, got {_shown(value)}")


def to_bytes(value: Any, length: int | None = None, name: str = "data") -> bytes:
    """Read DATA of exactly `length` bytes (any length when None); raises WireError."""
    if not isinstance(value, str) or value[:2] not in ("0x", "0X"):
        raise WireError(f"{name}: expected hex data, got {_shown(value)}")
    try:
        raw = bytes.fromhex(value[2:])
    except ValueError:
        raise WireError(f"{name}: not hex data: {_shown(value)}") from None
    if 2 * len(raw) != len(value) - 2:  # bytes.fromhex skips white space, the format does not allow any
        raise WireError(f"{name}: not hex data: {_shown(value)}")
    if length is not None and len(raw) != length:
        raise WireError(f"{name}: expected {length} bytes, got {len(raw)}")
    return raw


def to_object(value: Any, name: str) -> Mapping[str, Any]:
    """Read a JSON object; raises WireError."""
    if not isinstance(value, Mapping):
        raise WireError(f"{name}: expected an object")
    return value


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "…"
