"""The precompiled contracts of each fork: py-evm's table, native implementations over it, OP's additions and limits."""

import hashlib
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

from eth.exceptions import OutOfGas, VMError
from eth.precompiles.bls12_381.constants import (
    BLS12_G1_ADD_GAS,
    BLS12_G1_MSM_GAS,
    BLS12_G2_ADD_GAS,
    BLS12_G2_MSM_GAS,
    BLS12_MAP_FP2_G2_GAS,
    BLS12_MAP_FP_G1_GAS,
    G1_MSM_DISCOUNTS,
    G1_MSM_MAX_DISCOUNT,
    G2_MSM_DISCOUNTS,
    G2_MSM_MAX_DISCOUNT,
    MSM_MULTIPLIER,
)
from eth.vm.forks.cancun.computation import CANCUN_PRECOMPILES
from eth.vm.forks.prague.computation import PRAGUE_PRECOMPILES

from flashblocks.execution.big_power import openssl
from flashblocks.execution.chain_spec import Rules
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.modexp import modexp, modexp_gas
from flashblocks.execution.p256 import p256_verify
from flashblocks.execution.signature import CURVE_ORDER, recover_any

Precompile = Callable[[Any], Any]
Table = Mapping[bytes, Precompile]

ECRECOVER = 0x01
RIPEMD160 = 0x03
MODEXP = 0x05
BN254_ADD, BN254_MULTIPLY, BN254_PAIRING = 0x06, 0x07, 0x08
BLAKE2F = 0x09
BLS_G1_ADD, BLS_G1_MSM, BLS_G2_ADD, BLS_G2_MSM, BLS_PAIRING, BLS_MAP_G1, BLS_MAP_G2 = range(0x0B, 0x12)
POINT_EVALUATION = 0x0A
P256_VERIFY = 0x100

ECRECOVER_GAS = 3_000
RIPEMD160_GAS = 600
RIPEMD160_WORD_GAS = 120
BN254_ADD_GAS = 150
BN254_MULTIPLY_GAS = 6_000
BN254_PAIRING_GAS = 45_000
BN254_PAIRING_PAIR_GAS = 34_000
BLS_PAIRING_GAS = 37_700
BLS_PAIRING_PAIR_GAS = 32_600
POINT_EVALUATION_GAS = 50_000  # EIP-4844
POINT_EVALUATION_BYTES = 192
FIELD_ELEMENTS_PER_BLOB = 4_096
P256_GAS = 3_450  # RIP-7212, Fjord
P256_BYTES = 160
BLAKE2F_BYTES = 213

# Input limits in bytes; a longer input fails and takes all gas (specs: granite, isthmus and jovian exec-engine.md).
GRANITE_LIMITS_BYTES = {BN254_PAIRING: 112_687}
ISTHMUS_LIMITS_BYTES = {BLS_G1_MSM: 513_760, BLS_G2_MSM: 488_448, BLS_PAIRING: 235_008}
JOVIAN_LIMITS_BYTES = {BN254_PAIRING: 81_984, BLS_G1_MSM: 288_960, BLS_G2_MSM: 278_784, BLS_PAIRING: 156_672}

# Nothing can stop a precompile that runs. A call of more gas than this is begun only when there is time for it, at a
# speed that is a third below what was measured for the slowest input found.
LONG_CALL_GAS = 200_000
GAS_PER_S = {MODEXP: 15e6, BLAKE2F: 50e6, BN254_PAIRING: 70e6, BLS_G1_MSM: 60e6, BLS_G2_MSM: 50e6, BLS_PAIRING: 50e6}
GAS_PER_S_OF_OTHERS = 100e6  # hashes and copies, at most what memory allows
MODEXP_GAS_PER_S_WITHOUT_OPENSSL = 1.5e6

TRUE_WORD = bytes(31) + b"\1"
FALSE_WORD = bytes(32)


def address(number: int) -> bytes:
    """The address of a precompile."""
    return number.to_bytes(20, "big")


def table(rules: Rules, native: bool = True) -> dict[bytes, Precompile]:
    """Address → function of every precompile under these rules; without `native`, py-evm's wherever it has one."""
    found: dict[bytes, Precompile] = dict(PRAGUE_PRECOMPILES if rules.isthmus else CANCUN_PRECOMPILES)
    if rules.fjord:
        found[address(P256_VERIFY)] = run_p256
    found[address(MODEXP)] = run_modexp
    found[address(RIPEMD160)] = run_ripemd160
    found[address(BLAKE2F)] = run_blake2f
    if native:
        found.update({address(number): function for number, function in _native(rules).items()})
    limits = dict(GRANITE_LIMITS_BYTES) if rules.granite else {}
    if rules.isthmus:
        limits.update(ISTHMUS_LIMITS_BYTES)
    if rules.jovian:
        limits.update(JOVIAN_LIMITS_BYTES)
    for number, limit in limits.items():
        found[address(number)] = limited(found[address(number)], limit)
    return found


@cache
def speeds() -> dict[bytes, float]:
    """Gas per second by address, for precompiles that one call can keep busy for long."""
    found = {address(number): gas_per_s for number, gas_per_s in GAS_PER_S.items()}
    if openssl() is None:
        found[address(MODEXP)] = MODEXP_GAS_PER_S_WITHOUT_OPENSSL
    return found


def _native(rules: Rules) -> dict[int, Precompile]:
    """What the installed wheels can do faster; else py-evm's own stays."""
    found: dict[int, Precompile] = {ECRECOVER: run_ecrecover, **_bn254()}
    try:
        from flashblocks.execution import bls12_381
    except ImportError:
        return found
    found[POINT_EVALUATION] = _point_evaluation(bls12_381)
    if rules.isthmus:
        found.update(_bls12(bls12_381))
    return found


def _point_evaluation(curve: Any) -> Precompile:
    """py-evm's loads the whole trusted setup in every call, a second for 50,000 gas; this one needs a point of it."""
    answer = FIELD_ELEMENTS_PER_BLOB.to_bytes(32, "big") + curve.ORDER.to_bytes(32, "big")

    def point_evaluation(computation: Any) -> None:
        computation.consume_gas(POINT_EVALUATION_GAS, "point evaluation")
        data = computation.msg.data
        if len(data) != POINT_EVALUATION_BYTES:
            raise VMError("point evaluation: input must be 192 bytes")
        versioned, z, y, commitment, proof = data[:32], data[32:64], data[64:96], data[96:144], data[144:]
        if versioned != b"\1" + hashlib.sha256(commitment).digest()[1:]:
            raise VMError("point evaluation: commitment is not that of the versioned hash")
        if not checked(lambda _: curve.kzg_proof_holds(commitment, z, y, proof), data):
            raise VMError("point evaluation: wrong proof")
        computation._output = answer

    return point_evaluation


@cache
def bn254_library() -> Any:
    """The native curve, loaded on first use (0.1 s, 20 MB, which most processes never need); None without the wheel."""
    try:
        from flashblocks.execution import bn254
    except ImportError:
        return None
    return bn254


def warm_up() -> None:
    """Load now what would otherwise be loaded inside a block."""
    bn254_library()


def _bn254() -> dict[int, Precompile]:
    pure = {number: CANCUN_PRECOMPILES[address(number)] for number in (BN254_ADD, BN254_MULTIPLY, BN254_PAIRING)}

    def add(computation: Any) -> None:
        curve = bn254_library()
        if curve is None:
            pure[BN254_ADD](computation)
            return
        computation.consume_gas(BN254_ADD_GAS, "ecAdd")
        computation._output = checked(curve.add, first_bytes(computation, 128))

    def multiply(computation: Any) -> None:
        curve = bn254_library()
        if curve is None:
            pure[BN254_MULTIPLY](computation)
            return
        computation.consume_gas(BN254_MULTIPLY_GAS, "ecMul")
        computation._output = checked(curve.multiply, first_bytes(computation, 96))

    def pairing(computation: Any) -> None:
        curve = bn254_library()
        if curve is None:
            pure[BN254_PAIRING](computation)
            return
        data = computation.msg.data
        pairs, rest = divmod(len(data), curve.PAIR_BYTES)
        computation.consume_gas(BN254_PAIRING_GAS + BN254_PAIRING_PAIR_GAS * pairs, "ecPairing")
        if rest:
            raise VMError("ecPairing: input is not whole pairs")
        computation._output = TRUE_WORD if checked(curve.pairing_is_one, bytes(data)) else FALSE_WORD

    return {BN254_ADD: add, BN254_MULTIPLY: multiply, BN254_PAIRING: pairing}


def _bls12(curve: Any) -> dict[int, Precompile]:
    def fixed(run: Callable[[bytes], bytes], size: int, gas: int) -> Precompile:
        def precompile(computation: Any) -> None:
            if len(computation.msg.data) != size:
                raise VMError(f"input must be {size} bytes")
            computation.consume_gas(gas, "BLS12-381")
            computation._output = checked(run, computation.msg.data_as_bytes)

        return precompile

    def msm(run: Callable[[bytes], bytes], size: int, gas: int, discounts: list[int], most: int) -> Precompile:
        def precompile(computation: Any) -> None:
            pairs, rest = divmod(len(computation.msg.data), size)
            if rest or not pairs:
                raise VMError("input is not whole pairs")
            discount = discounts[pairs - 1] if pairs <= len(discounts) else most
            computation.consume_gas(pairs * gas * discount // MSM_MULTIPLIER, "BLS12-381 MSM")
            computation._output = checked(run, computation.msg.data_as_bytes)

        return precompile

    def pairing(computation: Any) -> None:
        pairs, rest = divmod(len(computation.msg.data), curve.PAIRING_BYTES)
        if rest or not pairs:
            raise VMError("input is not whole pairs")
        computation.consume_gas(BLS_PAIRING_GAS + BLS_PAIRING_PAIR_GAS * pairs, "BLS12-381 pairing")
        computation._output = TRUE_WORD if checked(curve.pairing_is_one, computation.msg.data_as_bytes) else FALSE_WORD

    return {
        BLS_G1_ADD: fixed(curve.g1_add, 2 * curve.G1_BYTES, BLS12_G1_ADD_GAS),
        BLS_G1_MSM: msm(curve.g1_msm, curve.G1_PAIR_BYTES, BLS12_G1_MSM_GAS, G1_MSM_DISCOUNTS, G1_MSM_MAX_DISCOUNT),
        BLS_G2_ADD: fixed(curve.g2_add, 2 * curve.G2_BYTES, BLS12_G2_ADD_GAS),
        BLS_G2_MSM: msm(curve.g2_msm, curve.G2_PAIR_BYTES, BLS12_G2_MSM_GAS, G2_MSM_DISCOUNTS, G2_MSM_MAX_DISCOUNT),
        BLS_PAIRING: pairing,
        BLS_MAP_G1: fixed(curve.map_to_g1, curve.FIELD_BYTES, BLS12_MAP_FP_G1_GAS),
        BLS_MAP_G2: fixed(curve.map_to_g2, 2 * curve.FIELD_BYTES, BLS12_MAP_FP2_G2_GAS),
    }


def checked(run: Callable[[bytes], Any], data: bytes) -> Any:
    """Run curve arithmetic; input that is not a point fails the call."""
    try:
        return run(data)
    except ValueError as error:
        raise VMError(str(error)) from error


def first_bytes(computation: Any, size: int) -> bytes:
    """The beginning of the input, zeros where it ends before."""
    return bytes(computation.msg.data[:size]).ljust(size, b"\0")


def run_blake2f(computation: Any) -> Any:
    """BLAKE2F (EIP-152): py-evm's, which finds its wheel itself, but copies the input before it looks at its size."""
    if len(computation.msg.data) != BLAKE2F_BYTES:
        raise VMError("blake2f: input must be 213 bytes")
    return CANCUN_PRECOMPILES[address(BLAKE2F)](computation)


def limited(run: Precompile, limit_bytes: int) -> Precompile:
    """The same precompile, failing for an input above `limit_bytes`."""

    def run_limited(computation: Any) -> Any:
        if len(computation.msg.data) > limit_bytes:
            raise OutOfGas(f"precompile input above {limit_bytes} bytes")
        return run(computation)

    return run_limited


def run_ecrecover(computation: Any) -> None:
    """ECRECOVER: the signer's address as a word, nothing where the signature is none."""
    computation.consume_gas(ECRECOVER_GAS, "ecRecover")
    data = first_bytes(computation, 128)
    v, r, s = (int.from_bytes(data[at : at + 32], "big") for at in (32, 64, 96))
    if v not in (27, 28) or not 0 < r < CURVE_ORDER or not 0 < s < CURVE_ORDER:
        return
    try:
        signer = recover_any(data[:32], r, s, v - 27)
    except InvalidTransaction:
        return
    computation._output = bytes(12) + signer


def run_modexp(computation: Any) -> None:
    """MODEXP (EIP-198, 2565)."""
    data = computation.msg.data
    computation.consume_gas(modexp_gas(data), "modexp")
    computation._output = modexp(data)


def _ripemd160(data: bytes) -> bytes:
    """OpenSSL 3 may be built without RIPEMD-160; py-evm brings pycryptodome, which has it."""
    try:
        return hashlib.new("ripemd160", data).digest()
    except ValueError:
        from Crypto.Hash import RIPEMD160 as module

        return module.new(data).digest()


def run_ripemd160(computation: Any) -> None:
    """RIPEMD160, as a word."""
    words = (len(computation.msg.data) + 31) // 32
    computation.consume_gas(RIPEMD160_GAS + RIPEMD160_WORD_GAS * words, "ripemd160")
    computation._output = bytes(12) + _ripemd160(computation.msg.data_as_bytes)


def run_p256(computation: Any) -> Any:
    """P256VERIFY (RIP-7212): a word of 1 for a valid signature, nothing for any other input."""
    computation.consume_gas(P256_GAS, "P256VERIFY")
    if len(computation.msg.data) == P256_BYTES and p256_verify(computation.msg.data_as_bytes):
        computation._output = TRUE_WORD
