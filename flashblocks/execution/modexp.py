"""Modular exponentiation for precompile 0x05 (EIP-198, gas of EIP-2565).

py-evm's answers 0 for an empty base even where the exponent is 0, where the value is 1 mod m; this one does not.
"""

from flashblocks.execution.big_power import power

Bytes = bytes | memoryview

HEAD_BYTES = 96
GAS_MINIMUM = 200
GAS_DIVISOR = 3


def modexp_lengths(data: Bytes) -> tuple[int, int, int]:
    """Lengths in bytes of base, exponent and modulus."""
    head = bytes(data[:HEAD_BYTES]).ljust(HEAD_BYTES, b"\0")
    return int.from_bytes(head[:32], "big"), int.from_bytes(head[32:64], "big"), int.from_bytes(head[64:], "big")


def modexp_gas(data: Bytes) -> int:
    """The price of a call with this input."""
    base_size, exponent_size, modulus_size = modexp_lengths(data)
    start = HEAD_BYTES + base_size
    first = bytes(data[start : start + min(exponent_size, 32)]).ljust(min(exponent_size, 32), b"\0")
    iterations = max(int.from_bytes(first, "big").bit_length() - 1, 0)
    if exponent_size > 32:
        iterations += 8 * (exponent_size - 32)
    words = (max(base_size, modulus_size) + 7) // 8
    return max(GAS_MINIMUM, words * words * max(iterations, 1) // GAS_DIVISOR)


def modexp(data: Bytes) -> bytes:
    """base ** exponent mod modulus, as many bytes as the modulus has. Call it only once its gas is paid."""
    base_size, exponent_size, modulus_size = modexp_lengths(data)
    if modulus_size == 0:
        return b""
    start = HEAD_BYTES
    numbers = []
    for size in (base_size, exponent_size, modulus_size):
        piece = data[start : start + size]
        # Bytes beyond the input are zeros: shifting puts them there without building them first.
        numbers.append(int.from_bytes(piece, "big") << 8 * (size - len(piece)))
        start += size
    base, exponent, modulus = numbers
    result = power(base, exponent, modulus) if modulus else 0
    return result.to_bytes(modulus_size, "big")
