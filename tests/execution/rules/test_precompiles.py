"""Native precompiles against py-evm's pure Python, input by input, with gas; EELS for modexp; OP's limits."""

import functools
import hashlib
import random
import sys
from typing import Any

import pytest
from eth.exceptions import OutOfGas, VMError
from hypothesis import given, settings
from hypothesis import strategies as st

from flashblocks.execution import precompiles
from flashblocks.execution.chain_spec import HOLOCENE, ISTHMUS, JOVIAN
from flashblocks.execution.modexp import modexp, modexp_gas
from flashblocks.execution.p256 import p256_verify

_recursion_limit = sys.getrecursionlimit()
from ethereum.forks.prague.vm.precompiled_contracts.modexp import gas_cost  # noqa: E402
from ethereum_types.numeric import U256  # noqa: E402

sys.setrecursionlimit(_recursion_limit)  # EELS sets its own on import

BN_ORDER = 21888242871839275222246405745257275088548364400416034343698204186575808495617
BN_FIELD = 21888242871839275222246405745257275088696311157297823662689037894645226208583
BLS_ORDER = 0x73EDA753299D7D483339D80809A1D80553BDA402FFFE5BFEFFFFFFFF00000001

NATIVE = precompiles.table(ISTHMUS)
PURE = precompiles.table(ISTHMUS, native=False)


class Message:
    def __init__(self, data: bytes) -> None:
        self.data = self.data_as_bytes = data


class Computation:
    """As much of a frame as a precompile sees."""

    def __init__(self, data: bytes) -> None:
        self.msg = Message(data)
        self._output = b""
        self.gas = 0

    def consume_gas(self, amount: int, reason: str) -> None:
        self.gas += amount

    @property
    def output(self) -> bytes:
        return self._output

    @output.setter
    def output(self, value: bytes) -> None:
        self._output = value


def run(table: Any, number: int, data: bytes) -> tuple[bytes, int] | None:
    computation = Computation(data)
    try:
        table[precompiles.address(number)](computation)
    except VMError:
        return None
    return computation.output, computation.gas


def same(number: int, data: bytes) -> tuple[bytes, int] | None:
    result = run(NATIVE, number, data)
    assert result == run(PURE, number, data), (number, data.hex())
    return result


def word(value: int) -> bytes:
    return int(value).to_bytes(32, "big")


def bn_g1(k: int) -> bytes:
    from py_ecc.optimized_bn128 import G1, multiply, normalize

    if k % BN_ORDER == 0:
        return bytes(64)
    x, y = normalize(multiply(G1, k))
    return word(x) + word(y)


def bn_g2(k: int) -> bytes:
    from py_ecc.optimized_bn128 import G2, multiply, normalize

    if k % BN_ORDER == 0:
        return bytes(128)
    x, y = normalize(multiply(G2, k))
    return b"".join(word(c) for c in (x.coeffs[1], x.coeffs[0], y.coeffs[1], y.coeffs[0]))


def test_bn254_addition_and_multiplication() -> None:
    chance = random.Random(4)
    scalars = [0, 1, 2, BN_ORDER - 1, chance.randrange(BN_ORDER)]
    for a in scalars:
        for b in scalars:
            assert same(precompiles.BN254_ADD, bn_g1(a) + bn_g1(b)) is not None
        for factor in (0, 1, BN_ORDER, 2**256 - 1, chance.randrange(BN_ORDER)):
            assert same(precompiles.BN254_MULTIPLY, bn_g1(a) + word(factor)) is not None
    for data in (b"", bn_g1(3)[:40], bn_g1(3) + b"\1", bn_g1(5) * 3):
        same(precompiles.BN254_ADD, data)
        same(precompiles.BN254_MULTIPLY, data)
    for bad in (word(1) + word(1), word(BN_FIELD) + word(2), word(1) + word(BN_FIELD + 2), word(1) + word(BN_FIELD)):
        assert same(precompiles.BN254_ADD, bad) is None
        assert same(precompiles.BN254_MULTIPLY, bad + word(1)) is None


def test_bn254_pairing() -> None:
    chance = random.Random(5)
    a, b = chance.randrange(1, BN_ORDER), chance.randrange(1, BN_ORDER)
    balanced = bn_g1(a) + bn_g2(b) + bn_g1(BN_ORDER - a * b % BN_ORDER) + bn_g2(1)
    assert same(precompiles.BN254_PAIRING, balanced) == (word(1), 45_000 + 2 * 34_000)
    assert same(precompiles.BN254_PAIRING, bn_g1(a) + bn_g2(b)) == (word(0), 79_000)
    assert same(precompiles.BN254_PAIRING, b"") == (word(1), 45_000)
    assert same(precompiles.BN254_PAIRING, bytes(64) + bn_g2(b) + bn_g1(a) + bytes(128)) == (word(1), 113_000)
    for bad in (bytes(191), bn_g1(1) + word(1) + word(2) + word(3) + word(4), bn_g1(1) + word(BN_FIELD) * 4):
        assert same(precompiles.BN254_PAIRING, bad) is None


def test_without_its_wheel_bn254_is_py_evms(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precompiles, "bn254_library", lambda: None)
    assert same(precompiles.BN254_ADD, bn_g1(2) + bn_g1(3)) == (bn_g1(5), 150)
    assert same(precompiles.BN254_MULTIPLY, bn_g1(2) + word(3)) == (bn_g1(6), 6_000)
    assert same(precompiles.BN254_PAIRING, b"") == (word(1), 45_000)


def test_bn254_point_outside_the_subgroup_is_refused() -> None:
    from py_ecc.fields import optimized_bn128_FQ2 as Fq2
    from py_ecc.optimized_bn128 import b2

    x = 1
    while True:  # a point of the twist with a square root over Fp2 (p = 3 mod 4)
        candidate = Fq2([x, 0])
        rhs = candidate * candidate * candidate + b2
        a1 = rhs ** ((BN_FIELD - 3) // 4)
        alpha, x0 = a1 * a1 * rhs, a1 * rhs
        y = Fq2([0, 1]) * x0 if alpha == Fq2([BN_FIELD - 1, 0]) else ((Fq2.one() + alpha) ** ((BN_FIELD - 1) // 2)) * x0
        if y * y == rhs:
            break
        x += 1
    point = b"".join(word(c) for c in (candidate.coeffs[1], candidate.coeffs[0], y.coeffs[1], y.coeffs[0]))
    assert same(precompiles.BN254_PAIRING, bn_g1(1) + point) is None


def bls_g1(k: int) -> bytes:
    from py_ecc.optimized_bls12_381 import G1, multiply, normalize

    if k % BLS_ORDER == 0:
        return bytes(128)
    return b"".join(int(c).to_bytes(64, "big") for c in normalize(multiply(G1, k)))


def bls_g2(k: int) -> bytes:
    from py_ecc.optimized_bls12_381 import G2, multiply, normalize

    if k % BLS_ORDER == 0:
        return bytes(256)
    x, y = normalize(multiply(G2, k))
    return b"".join(int(c).to_bytes(64, "big") for c in (*x.coeffs, *y.coeffs))


def bls_g1_outside() -> bytes:
    """A point of the curve that is not in the subgroup."""
    p = 0x1A0111EA397FE69A4B1BA7B6434BACD764774B84F38512BF6730D2A0F6B0F6241EABFFFEB153FFFFB9FEFFFFFFFFAAAB
    x = 4
    while True:
        y = pow(x**3 + 4, (p + 1) // 4, p)
        if y * y % p == (x**3 + 4) % p:
            return x.to_bytes(64, "big") + y.to_bytes(64, "big")
        x += 1


def test_bls12_381_agrees_with_pure_python() -> None:
    a, b = 12345, BLS_ORDER - 7
    for x, y in ((0, 0), (a, 0), (a, a), (a, BLS_ORDER - a), (a, b)):
        assert same(precompiles.BLS_G1_ADD, bls_g1(x) + bls_g1(y)) is not None
        assert same(precompiles.BLS_G2_ADD, bls_g2(x) + bls_g2(y)) is not None
    outside = bls_g1_outside()
    assert same(precompiles.BLS_G1_ADD, outside + bls_g1(1)) is not None
    assert same(precompiles.BLS_G1_MSM, outside + word(1)) is None
    assert same(precompiles.BLS_PAIRING, outside + bls_g2(1)) is None
    pairs1 = bls_g1(a) + word(5) + bls_g1(b) + word(2**256 - 1) + bls_g1(0) + word(3)
    assert same(precompiles.BLS_G1_MSM, pairs1) is not None
    assert same(precompiles.BLS_G2_MSM, bls_g2(a) + word(0) + bls_g2(b) + word(BLS_ORDER + 1)) is not None
    balanced = bls_g1(a) + bls_g2(1) + bls_g1(BLS_ORDER - a) + bls_g2(1)
    assert same(precompiles.BLS_PAIRING, balanced) == (word(1), 37_700 + 2 * 32_600)
    assert same(precompiles.BLS_PAIRING, bls_g1(a) + bls_g2(2)) == (word(0), 37_700 + 32_600)
    assert same(precompiles.BLS_PAIRING, bls_g1(0) + bls_g2(2)) == (word(1), 37_700 + 32_600)
    for value in (0, 1, 2**380):
        assert same(precompiles.BLS_MAP_G1, value.to_bytes(64, "big")) is not None
        assert same(precompiles.BLS_MAP_G2, value.to_bytes(64, "big") + (7).to_bytes(64, "big")) is not None


@pytest.mark.parametrize("number", range(precompiles.BLS_G1_ADD, precompiles.BLS_MAP_G2 + 1))
def test_bls12_381_refuses_what_is_no_point(number: int) -> None:
    for data in (
        b"",
        b"\xff" * 64,
        b"\xff" * 128,
        b"\1" * 160,
        b"\1" * 256,
        b"\1" * 288,
        b"\1" * 384,
        b"\1" * 512,
        bytes(7),
    ):
        same(number, data)


COMMITMENT = "a3c9330a06642467615c00ef352b887068536b670fd7bdae362414d378cf1b3a88fe3eb4264a88612814aecf8fd6acfc"
KZG_Y = "3a0a770383968dd2465a442b0d317a924bfe49bbd378b6c5274e92b06a7f6786"
KZG_PROOF = "813ca1804eedcbb52ee9abe2ee54ef5c3e1930fc7bc7d4c1d4613d8b4bd7dd123c7dae53dea1a3fa9b29899e2a5a8b3a"


def kzg_input(commitment: bytes, z: bytes, y: bytes, proof: bytes) -> bytes:
    return b"\1" + hashlib.sha256(commitment).digest()[1:] + z + y + commitment + proof


def test_point_evaluation_agrees_with_ckzg(monkeypatch: pytest.MonkeyPatch) -> None:
    from eth.precompiles import point_evaluation

    loaded = functools.cache(point_evaluation.load_trusted_setup)  # py-evm loads it for every call
    monkeypatch.setattr(point_evaluation, "load_trusted_setup", loaded)
    # A blob of the numbers 1 to 4096 at the point 5, computed with c-kzg-4844.
    commitment, y, proof = bytes.fromhex(COMMITMENT), bytes.fromhex(KZG_Y), bytes.fromhex(KZG_PROOF)
    z = word(5)
    infinity = b"\xc0" + bytes(47)
    answer = word(4096) + word(BLS_ORDER)
    assert same(precompiles.POINT_EVALUATION, kzg_input(commitment, z, y, proof)) == (answer, 50_000)
    assert same(precompiles.POINT_EVALUATION, kzg_input(infinity, z, word(0), infinity)) == (answer, 50_000)
    outside = bls_g1_outside()
    compressed = bytes([outside[16] | 0x80]) + outside[17:64]
    for bad in (
        kzg_input(commitment, z, word(1), proof),
        kzg_input(commitment, word(6), y, proof),
        kzg_input(commitment, word(BLS_ORDER), y, proof),
        kzg_input(commitment, z, word(int(KZG_Y, 16) + BLS_ORDER), proof),
        kzg_input(b"\xff" * 48, z, y, proof),
        kzg_input(commitment, z, y, bytes(48)),
        kzg_input(commitment, z, y, infinity),
        kzg_input(compressed, z, y, proof),
        kzg_input(commitment, z, y, proof)[:-1],
        b"\2" + kzg_input(commitment, z, y, proof)[1:],
    ):
        assert same(precompiles.POINT_EVALUATION, bad) is None


def test_ecrecover_agrees_with_py_evm() -> None:
    from flashblocks.execution.signature import CURVE_ORDER
    from flashblocks.execution.signing import address_of, sign_digest

    key, digest = b"\x13" * 32, b"\x14" * 32
    r, s, parity = sign_digest(digest, key)
    good = digest + word(27 + parity) + word(r) + word(s)
    assert same(precompiles.ECRECOVER, good) == (bytes(12) + address_of(key), 3_000)
    high = digest + word(28 - parity) + word(r) + word(CURVE_ORDER - s)
    assert same(precompiles.ECRECOVER, high) == (bytes(12) + address_of(key), 3_000)
    assert same(precompiles.ECRECOVER, good + b"junk") == same(precompiles.ECRECOVER, good)
    for bad in (b"", good[:96], digest + word(29) + good[64:], digest + word(27) + word(0) + word(s)):
        assert same(precompiles.ECRECOVER, bad) == (b"", 3_000)
    for bad_r in (5, CURVE_ORDER, 2**256 - 1):
        same(precompiles.ECRECOVER, digest + word(27) + word(bad_r) + word(s))


def test_ripemd160_with_and_without_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = bytes(12) + bytes.fromhex("8eb208f7e05d987a9b044a8e98c6b087f15a0bfc")  # of "abc", from its authors
    assert run(NATIVE, precompiles.RIPEMD160, b"abc") == (expected, 720)

    def missing(*_: Any) -> None:
        raise ValueError("unsupported hash type ripemd160")

    monkeypatch.setattr("hashlib.new", missing)
    assert run(NATIVE, precompiles.RIPEMD160, b"abc") == (expected, 720)
    assert run(NATIVE, precompiles.RIPEMD160, b"") == (
        bytes(12) + bytes.fromhex("9c1185a5c5e9fc54612808977ee8f548b2258d31"),
        600,
    )


SIZES = st.integers(0, 70)


@settings(max_examples=200)
@given(SIZES, SIZES, SIZES, st.binary(max_size=200))
def test_modexp_agrees_with_eels(base: int, exponent: int, modulus: int, body: bytes) -> None:
    data = word(base) + word(exponent) + word(modulus) + body
    padded = body.ljust(210, b"\0")
    head = int.from_bytes(padded[base : base + min(exponent, 32)], "big")
    assert modexp_gas(data) == int(gas_cost(U256(base), U256(modulus), U256(exponent), U256(head)))
    b, e, m = (
        int.from_bytes(p, "big")
        for p in (padded[:base], padded[base : base + exponent], padded[base + exponent : base + exponent + modulus])
    )
    assert modexp(data) == ((pow(b, e, m) if m else 0).to_bytes(modulus, "big"))


def test_modexp_of_an_empty_base_and_exponent_is_one() -> None:
    assert modexp(word(0) + word(0) + word(1) + b"\5") == b"\1"
    assert modexp(word(2**200) + word(2**200) + word(0)) == b""
    assert modexp_gas(word(0) + word(2**200) + word(0)) == 200


def test_p256() -> None:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    key = ec.derive_private_key(12345, ec.SECP256R1())
    digest = b"\x21" * 32
    r, s = utils.decode_dss_signature(key.sign(digest, ec.ECDSA(utils.Prehashed(hashes.SHA256()))))
    public = key.public_key().public_numbers()
    good = digest + word(r) + word(s) + word(public.x) + word(public.y)
    assert run(NATIVE, precompiles.P256_VERIFY, good) == (word(1), 3_450)
    bad = [
        good[:-1],
        good + b"\0",
        b"",
        word(1) + good[32:],
        good[:32] + word(0) + good[64:],
        good[:96] + word(1) + word(1),
    ]
    bad.append(digest + word(r) + word(s) + bytes(64))
    for data in bad:
        assert not p256_verify(data)
        assert run(NATIVE, precompiles.P256_VERIFY, data) == (b"", 3_450)


@pytest.mark.parametrize(
    ("rules", "number", "limit"),
    [
        (HOLOCENE, precompiles.BN254_PAIRING, 112_687),
        (ISTHMUS, precompiles.BN254_PAIRING, 112_687),
        (ISTHMUS, precompiles.BLS_G1_MSM, 513_760),
        (ISTHMUS, precompiles.BLS_G2_MSM, 488_448),
        (ISTHMUS, precompiles.BLS_PAIRING, 235_008),
        (JOVIAN, precompiles.BN254_PAIRING, 81_984),
        (JOVIAN, precompiles.BLS_G1_MSM, 288_960),
        (JOVIAN, precompiles.BLS_G2_MSM, 278_784),
        (JOVIAN, precompiles.BLS_PAIRING, 156_672),
    ],
)
def test_input_limits(rules: Any, number: int, limit: int) -> None:
    table = precompiles.table(rules)
    with pytest.raises(OutOfGas, match="above"):
        table[precompiles.address(number)](Computation(bytes(limit + 1)))
    try:  # at the limit something else may be wrong with the input, but not its size
        table[precompiles.address(number)](Computation(bytes(limit)))
    except VMError as error:
        assert "above" not in str(error)


def test_forks_have_their_precompiles() -> None:
    assert set(precompiles.table(JOVIAN)) == set(precompiles.table(ISTHMUS))
    assert set(precompiles.table(ISTHMUS)) - set(precompiles.table(HOLOCENE)) == {
        precompiles.address(number) for number in range(0x0B, 0x12)
    }
