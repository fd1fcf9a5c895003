"""A small EVM assembler, so that the contracts of our genesis are readable source instead of opaque hexadecimal."""

from flashblocks.execution.keccak import keccak256

LABEL_BYTES = 2

_FAMILIES = {
    0x00: "stop add mul sub div sdiv mod smod addmod mulmod exp signextend",
    0x10: "lt gt slt sgt eq iszero and or xor not byte shl shr sar",
    0x20: "keccak256",
    0x30: "address balance origin caller callvalue calldataload calldatasize calldatacopy codesize codecopy gasprice "
    "extcodesize extcodecopy returndatasize returndatacopy extcodehash blockhash coinbase timestamp number prevrandao "
    "gaslimit chainid selfbalance basefee blobhash blobbasefee",
    0x50: "pop mload mstore mstore8 sload sstore jump jumpi pc msize gas jumpdest tload tstore mcopy push0",
    0xF0: "create call callcode return delegatecall create2",
    0xFA: "staticcall",
    0xFD: "revert invalid selfdestruct",
}
_NAMED = {name: first + offset for first, names in _FAMILIES.items() for offset, name in enumerate(names.split())}
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
