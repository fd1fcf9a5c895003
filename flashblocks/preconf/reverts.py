"""Why a call reverted, as Solidity encodes it and clients show it."""

from flashblocks.wire.hexadecimal import data
from flashblocks.wire.jsonrpc import EXECUTION_REVERTED, SERVER_ERROR, RpcError

ERROR_SELECTOR = bytes.fromhex("08c379a0")  # Error(string)
PANIC_SELECTOR = bytes.fromhex("4e487b71")  # Panic(uint256)
PANICS = {
    0x00: "generic panic",
    0x01: "assert(false)",
    0x11: "arithmetic underflow or overflow",
    0x12: "division or modulo by zero",
    0x21: "enum overflow",
    0x22: "invalid encoded storage byte array accessed",
    0x31: "out-of-bounds array access; popping on an empty array",
    0x32: "out-of-bounds access of an array or bytesN",
    0x41: "out of memory",
    0x51: "uninitialized function",
}


def failed_call(error: str, revert_data: bytes) -> RpcError:
    """The protocol error for a call that failed: code 3 with the data for a revert, as every client answers."""
    if error != "execution reverted":
        return RpcError(SERVER_ERROR, error)
    reason = revert_reason(revert_data)
    text = error if reason is None else f"{error}: {reason}"
    return RpcError(EXECUTION_REVERTED, text, data(revert_data))


def revert_reason(revert_data: bytes) -> str | None:
    """The text in `Error(string)` or `Panic(uint256)`, or None for anything else."""
    selector, body = revert_data[:4], revert_data[4:]
    if selector == PANIC_SELECTOR and len(body) == 32:
        code = int.from_bytes(body, "big")
        return PANICS.get(code, f"unknown panic code: {code:#x}")
    if selector != ERROR_SELECTOR or len(body) < 64:
        return None
    offset = int.from_bytes(body[:32], "big")
    if offset + 32 > len(body):
        return None
    size = int.from_bytes(body[offset : offset + 32], "big")
    text = body[offset + 32 : offset + 32 + size]
    return text.decode(errors="replace") if len(text) == size else None
