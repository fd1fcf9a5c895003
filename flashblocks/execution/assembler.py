"""A small EVM assembler, so that the contracts of our genesis are readable source instead of opaque hexadecimal."""

from flashblocks.execution.keccak import keccak256

LABEL_BYTES = 2

_NAMED = {
    "stop": 0x00, "add": 0x01, "mul": 0x02, "sub": 0x03, "div": 0x04, "lt": 0x10, "gt": 0x11, "eq": 0x14,
    "iszero": 0x15, "and": 0x16, "or": 0x17, "not": 0x19, "shl": 0x1B, "shr": 0x1C, "keccak256": 0x20,
    "address": 0x30, "balance": 0x31, "origin": 0x32, "caller": 0x33, "callvalue": 0x34, "calldataload": 0x35,
    "calldatasize": 0x36, "calldatacopy": 0x37, "codecopy": 0x39, "gas": 0x5A, "pop": 0x50, "mload": 0x51,
    "mstore": 0x52, "mstore8": 0x53, "sload": 0x54, "sstore": 0x55, "jump": 0x56, "jumpi": 0x57, "push0": 0x5F,
    "call": 0xF1, "return": 0xF3, "revert": 0xFD, "selfbalance": 0x47, "selfdestruct": 0xFF, "create": 0xF0,
}  # fmt: skip
_NAMED.update({f"dup{n}": 0x7F + n for n in range(1, 17)})
_NAMED.update({f"swap{n}": 0x8F + n for n in range(1, 17)})
_NAMED.update({f"log{n}": 0xA0 + n for n in range(5)})


def selector(signature: str) -> bytes:
    """The first four bytes of a function signature's hash."""
    return keccak256(signature.encode())[:4]


def assemble(source: str) -> bytes:
    """Machine code of `source`: one instruction or `label:` per line or separated by spaces; `;` starts a comment.

    `@label` pushes the label's position, `0x…` and decimal numbers push themselves in as few bytes as they need. A
    label is a JUMPDEST. Raises ValueError for an unknown word or label.
    """
    words = [word for line in source.splitlines() for word in line.split(";")[0].split()]
    code = bytearray()
    labels: dict[str, int] = {}
    uses: list[tuple[int, str]] = []
    for word in words:
        if word.endswith(":"):
            labels[word[:-1]] = len(code)
            code.append(0x5B)
        elif word.startswith("@"):
            code.append(0x5F + LABEL_BYTES)
            uses.append((len(code), word[1:]))
            code += bytes(LABEL_BYTES)
        elif word in _NAMED:
            code.append(_NAMED[word])
        else:
            code += _push(word)
    for at, label in uses:
        if label not in labels:
            raise ValueError(f"unknown label {label}")
        code[at : at + LABEL_BYTES] = labels[label].to_bytes(LABEL_BYTES, "big")
    return bytes(code)


def _push(word: str) -> bytes:
    if word.startswith("0x"):
        value = bytes.fromhex(word[2:])
    else:
        number = int(word)
        value = number.to_bytes(max(1, (number.bit_length() + 7) // 8), "big")
    if not 0 < len(value) <= 32:
        raise ValueError(f"cannot push {word}")
    return b"\x5f" if value == b"\0" else bytes((0x5F + len(value),)) + value
