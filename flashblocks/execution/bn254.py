"""The curve alt_bn128 for precompiles 0x06 to 0x08 (EIP-196, 197) through libmcl, which the mclbn256 wheel carries.

Importing this module loads the library (0.1 s, 20 MB); it raises ImportError where there is no wheel. Points come as
the precompiles' big-endian bytes; a point or coordinate that is none raises ValueError.
"""

import ctypes
from typing import Any

FIELD = 21888242871839275222246405745257275088696311157297823662689037894645226208583
ORDER = 21888242871839275222246405745257275088548364400416034343698204186575808495617

G1_BYTES = 64
G2_BYTES = 128
PAIR_BYTES = G1_BYTES + G2_BYTES

_BN_SNARK1 = 4  # libmcl's name for alt_bn128
_COMPILED_TIME_VAR = 44  # units of a field element and of a scalar as the wheel was compiled


class _G1(ctypes.Structure):
    _fields_ = (("words", ctypes.c_uint64 * 12),)


class _G2(ctypes.Structure):
    _fields_ = (("words", ctypes.c_uint64 * 24),)


class _Gt(ctypes.Structure):
    _fields_ = (("words", ctypes.c_uint64 * 48),)


class _Scalar(ctypes.Structure):
    _fields_ = (("words", ctypes.c_uint64 * 4),)


def _load() -> Any:
    from mclbn256 import mclbn256

    # The module keeps the library's file as two byte strings; they are of no use once it is loaded.
    del mclbn256.mclbn256_bs, mclbn256.mcl_bs
    library = mclbn256.load_library("libmclbn256")
    if library.mclBn_init(_BN_SNARK1, _COMPILED_TIME_VAR) != 0:
        raise ImportError("libmclbn256 does not know alt_bn128")
    library.mclBn_verifyOrderG2(1)
    pointer, size, data = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p
    library.mclBnFp_setBigEndianMod.argtypes = library.mclBnFr_setBigEndianMod.argtypes = (pointer, data, size)
    library.mclBnFp_getLittleEndian.argtypes = (pointer, size, pointer)
    library.mclBnFp_getLittleEndian.restype = size
    for name in ("mclBnG1_isZero", "mclBnG2_isValid", "mclBnGT_isOne"):
        getattr(library, name).argtypes = (pointer,)
    for name in ("mclBnG1_normalize", "mclBn_finalExp"):
        getattr(library, name).argtypes = (pointer, pointer)
    for name in ("mclBnG1_add", "mclBnG1_mul"):
        getattr(library, name).argtypes = (pointer, pointer, pointer)
    library.mclBn_millerLoopVec.argtypes = (pointer, pointer, pointer, size)
    return library


_FIELD_WORDS = 32  # bytes of a field element inside a point
_FIELD_SIZE = 32
_FIELD_END = FIELD.to_bytes(32, "big")  # big-endian numbers of one length compare as bytes
_ZERO = bytes(32)
_ONE = (1).to_bytes(32, "big")


_address = ctypes.addressof
_mcl = _load()


def _set_field(place: int, value: bytes) -> None:
    """Write a big-endian field element to the address `place`, in libmcl's own form."""
    if _mcl.mclBnFp_setBigEndianMod(place, value, _FIELD_SIZE):
        raise ValueError("coordinate is not a field element")


def _g1(data: bytes) -> _G1:
    x, y = data[:32], data[32:64]
    if x >= _FIELD_END or y >= _FIELD_END:
        raise ValueError("coordinate is not a field element")
    point = _G1()  # zeros are the point at infinity
    if x != _ZERO or y != _ZERO:
        place = _address(point)
        _set_field(place, x)
        _set_field(place + _FIELD_WORDS, y)
        _set_field(place + 2 * _FIELD_WORDS, _ONE)
        # libmcl's own check also multiplies by the order, which every point of this curve has.
        number = int.from_bytes(x, "big")
        if (pow(int.from_bytes(y, "big"), 2, FIELD) - number * number * number - 3) % FIELD:
            raise ValueError("point is not on the curve")
    return point


def _g2(data: bytes) -> _G2:
    parts = [data[at : at + 32] for at in (32, 0, 96, 64)]  # the precompile has the imaginary part first
    if max(parts) >= _FIELD_END:
        raise ValueError("coordinate is not a field element")
    point = _G2()
    if any(part != _ZERO for part in parts):
        place = _address(point)
        for index, part in enumerate((*parts, _ONE)):
            _set_field(place + index * _FIELD_WORDS, part)
        if not _mcl.mclBnG2_isValid(place):  # on the curve and of the right order (verifyOrderG2)
            raise ValueError("point is not in the subgroup")
    return point


def _bytes(point: _G1) -> bytes:
    place = _address(point)
    if _mcl.mclBnG1_isZero(place):
        return bytes(G1_BYTES)
    _mcl.mclBnG1_normalize(place, place)
    text = ctypes.create_string_buffer(32)
    parts = []
    for at in (place, place + _FIELD_WORDS):
        size = _mcl.mclBnFp_getLittleEndian(ctypes.addressof(text), _FIELD_SIZE, at)
        parts.append(text.raw[:size][::-1].rjust(32, b"\0"))
    return b"".join(parts)


def add(data: bytes) -> bytes:
    """The sum of the two points in 128 bytes."""
    a, b = _g1(data[:64]), _g1(data[64:])
    place = _address(a)
    _mcl.mclBnG1_add(place, place, _address(b))
    return _bytes(a)


def multiply(data: bytes) -> bytes:
    """The point in the first 64 of 96 bytes, times the scalar in the rest."""
    point = _g1(data[:64])
    scalar = _Scalar()
    _mcl.mclBnFr_setBigEndianMod(_address(scalar), data[64:96], _FIELD_SIZE)
    place = _address(point)
    _mcl.mclBnG1_mul(place, place, _address(scalar))
    return _bytes(point)


def pairing_is_one(data: bytes) -> bool:
    """Whether the product of the pairings of all (G1, G2) in `data` (192 bytes each) is one."""
    count = len(data) // PAIR_BYTES
    if count == 0:
        return True
    left, right = (_G1 * count)(), (_G2 * count)()
    for index in range(count):
        at = index * PAIR_BYTES
        left[index] = _g1(data[at : at + G1_BYTES])
        right[index] = _g2(data[at + G1_BYTES : at + PAIR_BYTES])
    product = _Gt()
    place = _address(product)
    _mcl.mclBn_millerLoopVec(place, _address(left), _address(right), count)
    _mcl.mclBn_finalExp(place, place)
    return bool(_mcl.mclBnGT_isOne(place))
