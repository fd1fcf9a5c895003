"""Failed calls as JSON-RPC errors in geth's words: code 3 with the contract's data, and its reason if it gave one."""

from flashblocks.wire.hexadecimal import data
from flashblocks.wire.jsonrpc import EXECUTION_REVERTED, SERVER_ERROR, RpcError

ERROR_STRING_SELECTOR = bytes.fromhex("08c379a0")  # Error(string)
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


def revert_error(text: str, revert_data: bytes) -> RpcError:
    """The error for a call that failed with `text`; only a REVERT has data and code 3."""
    if text != "execution reverted":
        return RpcError(SERVER_ERROR, text)
    reason = revert_reason(revert_data)
    return RpcError(EXECUTION_REVERTED, f"{text}: {reason}" if reason else text, data(revert_data))


def revert_reason(revert_data: bytes) -> str | None:
    """What Error(string) or Panic(uint256) says, or None."""
    selector, arguments = revert_data[:4], revert_data[4:]
    if selector == PANIC_SELECTOR and len(arguments) == 32:
        code = int.from_bytes(arguments, "big")
        return PANICS.get(code, f"unknown panic code: {code:#x}")
    if selector != ERROR_STRING_SELECTOR or len(arguments) < 64:
        return None
    offset = int.from_bytes(arguments[:32], "big")
    if offset + 32 > len(arguments):
        return None
    size = int.from_bytes(arguments[offset : offset + 32], "big")
    words = arguments[offset + 32 : offset + 32 + size]
    if len(words) != size:
        return None
    return words.decode("utf-8", errors="replace")
