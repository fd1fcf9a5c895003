"""Powers of big numbers modulo a number: OpenSSL's where this Python is linked with it dynamically, else Python's own.

Python divides by the modulus after every squaring, ten times slower than Montgomery's way. Precompile 0x05 is priced
for the latter: 16,000 bytes of exponent over an 8-byte modulus cost 43,000 gas and would take 13 ms.
"""

import ctypes
from functools import cache
from typing import Any

# Below this many bits of exponent times words squared of modulus, a call into OpenSSL costs more than it saves.
SMALL_WORK = 2_000
WORD_BITS = 64
# An odd factor that makes a modulus of one word one of two, for which OpenSSL has a fast way. What comes out modulo the
# product is right modulo the original.
WIDENING_FACTOR = (1 << WORD_BITS) - 59


def power(base: int, exponent: int, modulus: int) -> int:
    """base ** exponent mod modulus, for a modulus above zero."""
    words = (modulus.bit_length() + WORD_BITS - 1) // WORD_BITS
    library = openssl()
    if library is None or exponent.bit_length() * words * words < SMALL_WORK:
        return pow(base, exponent, modulus)
    twos = (modulus & -modulus).bit_length() - 1
    odd = modulus >> twos
    by_odd = _odd_power(library, base % odd, exponent, odd) if odd > 1 else 0
    if not twos:
        return by_odd
    # Chinese remainders: x = by_odd (mod odd), x = by_twos (mod 2^twos).
    mask = (1 << twos) - 1
    by_twos = _power_of_two_power(base & mask, exponent, twos)
    return by_odd + odd * (((by_twos - by_odd) * pow(odd, -1, mask + 1)) & mask)


def _power_of_two_power(base: int, exponent: int, bits: int) -> int:
    """base ** exponent mod 2^bits. Odd numbers repeat after 2^(bits−2) multiplications; even ones vanish."""
    if base & 1:
        return pow(base, exponent & ((1 << bits) - 1), 1 << bits)
    return 0 if exponent >= bits else pow(base, exponent, 1 << bits)


def _odd_power(library: Any, base: int, exponent: int, modulus: int) -> int:
    if modulus.bit_length() <= WORD_BITS:
        wide = modulus * WIDENING_FACTOR
        # The base must be wide too: it has other representatives.
        return _openssl_power(library, base + modulus * (WIDENING_FACTOR - 1), exponent, wide) % modulus
    return _openssl_power(library, base, exponent, modulus)


def _openssl_power(library: Any, base: int, exponent: int, modulus: int) -> int:
    size = (modulus.bit_length() + 7) // 8
    numbers = [_number(library, value) for value in (base, exponent, modulus)]
    result, context = library.BN_new(), library.BN_CTX_new()
    try:
        output = ctypes.create_string_buffer(size)
        done = library.BN_mod_exp(result, *numbers, context) == 1
        if not done or library.BN_bn2binpad(result, output, size) != size:
            return pow(base, exponent, modulus)  # it was out of memory
        return int.from_bytes(output.raw, "big")
    finally:
        for number in (*numbers, result):
            library.BN_free(number)
        library.BN_CTX_free(context)


def _number(library: Any, value: int) -> Any:
    encoded = value.to_bytes((value.bit_length() + 7) // 8, "big")
    return library.BN_bin2bn(encoded, len(encoded), None)


@cache
def openssl() -> Any:
    """The libcrypto that Python's own hashlib is linked with, or None where it cannot be reached (static builds)."""
    pointer, size = ctypes.c_void_p, ctypes.c_int
    signatures = {
        "BN_CTX_new": (pointer, []),
        "BN_CTX_free": (None, [pointer]),
        "BN_new": (pointer, []),
        "BN_free": (None, [pointer]),
        "BN_bin2bn": (pointer, [ctypes.c_char_p, size, pointer]),
        "BN_mod_exp": (size, [pointer] * 5),
        "BN_bn2binpad": (size, [pointer, ctypes.c_char_p, size]),
    }
    try:
        import _hashlib

        library = ctypes.CDLL(_hashlib.__file__)
        for name, (result, arguments) in signatures.items():
            function = getattr(library, name)
            function.restype, function.argtypes = result, arguments
    except (ImportError, AttributeError, OSError):
        return None
    return library
