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
_HEX = 16
_TEXT_BYTES = 512


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
    return library


_mcl = _load()
_ref = ctypes.byref
_size = ctypes.c_size_t


def _g1(data: bytes) -> _G1:
    x, y = int.from_bytes(data[:32], "big"), int.from_bytes(data[32:64], "big")
    if x >= FIELD or y >= FIELD:
        raise ValueError("coordinate is not a field element")
    point = _G1()
    if x == 0 and y == 0:
        _mcl.mclBnG1_clear(_ref(point))
        return point
    text = f"1 {x:x} {y:x}".encode()
    if _mcl.mclBnG1_setStr(_ref(point), text, _size(len(text)), _HEX):
        raise ValueError("point is not on the curve")
    return point


def _g2(data: bytes) -> _G2:
    words = [int.from_bytes(data[at : at + 32], "big") for at in (0, 32, 64, 96)]
    if max(words) >= FIELD:
        raise ValueError("coordinate is not a field element")
    point = _G2()
    if not any(words):
        _mcl.mclBnG2_clear(_ref(point))
        return point
    text = f"1 {words[1]:x} {words[0]:x} {words[3]:x} {words[2]:x}".encode()
    if _mcl.mclBnG2_setStr(_ref(point), text, _size(len(text)), _HEX) or not _mcl.mclBnG2_isValidOrder(_ref(point)):
        raise ValueError("point is not in the subgroup")
    return point


def _bytes(point: _G1) -> bytes:
    if _mcl.mclBnG1_isZero(_ref(point)):
        return bytes(G1_BYTES)
    _mcl.mclBnG1_normalize(_ref(point), _ref(point))
    text = ctypes.create_string_buffer(_TEXT_BYTES)
    size = _mcl.mclBnG1_getStr(text, _size(_TEXT_BYTES), _ref(point), _HEX)
    _, x, y = text.raw[:size].split()
    return int(x, 16).to_bytes(32, "big") + int(y, 16).to_bytes(32, "big")


def add(data: bytes) -> bytes:
    """The sum of the two points in 128 bytes."""
    a, b = _g1(data[:64]), _g1(data[64:])
    _mcl.mclBnG1_add(_ref(a), _ref(a), _ref(b))
    return _bytes(a)


def multiply(data: bytes) -> bytes:
    """The point in the first 64 of 96 bytes, times the scalar in the rest."""
    point = _g1(data[:64])
    scalar = _Scalar()
    text = str(int.from_bytes(data[64:96], "big") % ORDER).encode()
    _mcl.mclBnFr_setStr(_ref(scalar), text, _size(len(text)), 10)
    _mcl.mclBnG1_mul(_ref(point), _ref(point), _ref(scalar))
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
    _mcl.mclBn_millerLoopVec(_ref(product), left, right, _size(count))
    _mcl.mclBn_finalExp(_ref(product), _ref(product))
    return bool(_mcl.mclBnGT_isOne(_ref(product)))
