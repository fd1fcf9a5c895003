"""The curve BLS12-381 for precompiles 0x0a (EIP-4844) and 0x0b to 0x11 (EIP-2537) through the py-arkworks wheel.

Raises ImportError where there is no wheel. Points come as the precompiles' padded big-endian bytes; what is not a
canonical point raises ValueError.
"""

from functools import cache

from py_arkworks_bls12381 import GT, G1Point, G2Point, Scalar

FIELD = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB

ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001

# The second G2 point of the KZG ceremony's setup: the secret times the generator. Verifying a proof needs no other.
KZG_SETUP_G2 = bytes.fromhex(
    "b5bfd7dd8cdeb128843bc287230af38926187075cbfbefa81009a2ce615ac53d2914e5870cb452d2afaaab24f3499f72"
    "185cbfee53492714734429b7b38608e23926c911cceceac9a36851477ba4c60b087041de621000edc98edada20c1def2"
)

FIELD_BYTES = 64  # 48 bytes of number behind 16 of padding
G1_BYTES = 128
G2_BYTES = 256
SCALAR_BYTES = 32
G1_PAIR_BYTES = G1_BYTES + SCALAR_BYTES
G2_PAIR_BYTES = G2_BYTES + SCALAR_BYTES
PAIRING_BYTES = G1_BYTES + G2_BYTES


def _unpadded(data: bytes) -> bytes:
    """The 48-byte numbers out of 64-byte fields."""
    parts = []
    for at in range(0, len(data), FIELD_BYTES):
        if int.from_bytes(data[at : at + FIELD_BYTES], "big") >= FIELD:
            raise ValueError("coordinate is not a field element")
        parts.append(data[at + 16 : at + FIELD_BYTES])
    return b"".join(parts)


def _padded(data: bytes) -> bytes:
    return b"".join([bytes(16) + data[at : at + 48] for at in range(0, len(data), 48)])


def _g1(data: bytes, in_subgroup: bool) -> G1Point:
    point = G1Point.from_xy_bytes_unchecked_be(_unpadded(data))
    if in_subgroup and not point.is_in_subgroup():
        raise ValueError("point is not in the subgroup")
    return point


def _g2(data: bytes, in_subgroup: bool) -> G2Point:
    point = G2Point.from_xy_bytes_unchecked_be(_unpadded(data))
    if in_subgroup and not point.is_in_subgroup():
        raise ValueError("point is not in the subgroup")
    return point


def g1_add(data: bytes) -> bytes:
    """The sum of two points (256 bytes); they need not be in the subgroup."""
    return _padded((_g1(data[:G1_BYTES], False) + _g1(data[G1_BYTES:], False)).to_xy_bytes_be())


def g2_add(data: bytes) -> bytes:
    """The sum of two points (512 bytes); they need not be in the subgroup."""
    return _padded((_g2(data[:G2_BYTES], False) + _g2(data[G2_BYTES:], False)).to_xy_bytes_be())


def g1_msm(data: bytes) -> bytes:
    """The sum of scalar multiples; `data` is (point, scalar) pairs of 160 bytes."""
    points, scalars = [], []
    for at in range(0, len(data), G1_PAIR_BYTES):
        points.append(_g1(data[at : at + G1_BYTES], True))
        scalars.append(Scalar.from_be_bytes_mod_order(data[at + G1_BYTES : at + G1_PAIR_BYTES]))
    return _padded(G1Point.multiexp_unchecked(points, scalars).to_xy_bytes_be())


def g2_msm(data: bytes) -> bytes:
    """The sum of scalar multiples; `data` is (point, scalar) pairs of 288 bytes."""
    points, scalars = [], []
    for at in range(0, len(data), G2_PAIR_BYTES):
        points.append(_g2(data[at : at + G2_BYTES], True))
        scalars.append(Scalar.from_be_bytes_mod_order(data[at + G2_BYTES : at + G2_PAIR_BYTES]))
    return _padded(G2Point.multiexp_unchecked(points, scalars).to_xy_bytes_be())


def pairing_is_one(data: bytes) -> bool:
    """Whether the product of the pairings of all (G1, G2) in `data` (384 bytes each) is one."""
    left, right = [], []
    for at in range(0, len(data), PAIRING_BYTES):
        left.append(_g1(data[at : at + G1_BYTES], True))
        right.append(_g2(data[at + G1_BYTES : at + PAIRING_BYTES], True))
    return GT.pairing_check(left, right)


def map_to_g1(data: bytes) -> bytes:
    """The point that a field element (64 bytes) maps to."""
    return _padded(G1Point.map_from_fp_be(_unpadded(data)).to_xy_bytes_be())


def map_to_g2(data: bytes) -> bytes:
    """The point that a pair of field elements (128 bytes) maps to."""
    return _padded(G2Point.map_from_fp2_be(_unpadded(data)).to_xy_bytes_be())


@cache
def _setup() -> G2Point:
    return G2Point.from_compressed_bytes(KZG_SETUP_G2)


def kzg_proof_holds(commitment: bytes, z: bytes, y: bytes, proof: bytes) -> bool:
    """Whether the polynomial behind `commitment` is `y` at `z` (EIP-4844, verify_kzg_proof).

    Points are compressed (48 bytes), numbers are 32 bytes, big endian; what is not canonical raises ValueError.
    """
    if int.from_bytes(z, "big") >= ORDER or int.from_bytes(y, "big") >= ORDER:
        raise ValueError("number is not a field element")
    at, value = Scalar.from_be_bytes(z), Scalar.from_be_bytes(y)
    difference = G1Point.from_compressed_bytes(commitment) - G1Point() * value
    shifted = _setup() - G2Point() * at
    return GT.pairing_check([difference, -G1Point.from_compressed_bytes(proof)], [G2Point(), shifted])
