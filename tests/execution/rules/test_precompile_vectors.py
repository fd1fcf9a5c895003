"""Precompiles against the specification's own (EELS), the vectors of their proposals, and without any native wheel."""

import hashlib
import json
import random
import subprocess
import sys
from typing import Any

import pytest
from eth.exceptions import OutOfGas, VMError

from flashblocks.execution import precompiles
from flashblocks.execution.chain_spec import ISTHMUS
from tests.execution.rules.test_precompiles import (
    BLS_ORDER,
    BN_ORDER,
    COMMITMENT,
    KZG_PROOF,
    KZG_Y,
    Computation,
    bls_g1,
    bls_g1_outside,
    bls_g2,
    bn_g1,
    bn_g2,
    kzg_input,
    run,
    word,
)

_recursion_limit = sys.getrecursionlimit()
from ethereum.exceptions import EthereumException  # noqa: E402
from ethereum.forks.osaka.vm.precompiled_contracts.p256verify import p256verify as eels_p256  # noqa: E402
from ethereum.forks.prague.fork_types import Address  # noqa: E402
from ethereum.forks.prague.vm.precompiled_contracts.mapping import PRE_COMPILED_CONTRACTS  # noqa: E402
from ethereum_types.bytes import Bytes  # noqa: E402
from ethereum_types.numeric import Uint  # noqa: E402

sys.setrecursionlimit(_recursion_limit)  # EELS sets its own on import

GAS = 200_000  # more would let a damaged blake2f run for hours in EELS
NATIVE = precompiles.table(ISTHMUS)

# EIP-152: state, message "abc", offset and flag after the four bytes of the number of rounds; then the output.
BLAKE2_STATE = (
    "48c9bdf267e6096a3ba7ca8485ae67bb2bf894fe72f36e3cf1361d5f3af54fa5"
    "d182e6ad7f520e511f6c3e2b8c68059b6bbd41fbabd9831f79217e1319cde05b"
)
BLAKE2_REST = "616263" + "00" * 125 + "0300000000000000" + "0000000000000000"
BLAKE2_VECTORS = [
    ("00000000", "01", "08c9bcf367e6096a3ba7ca8485ae67bb2bf894fe72f36e3cf1361d5f3af54fa5"
     "d282e6ad7f520e511f6c3e2b8c68059b9442be0454267ce079217e1319cde05b"),
    ("0000000c", "01", hashlib.blake2b(b"abc").hexdigest()),
    ("0000000c", "00", "75ab69d3190a562c51aef8d88f1c2775876944407270c42c9844252c26d28752"
     "98743e7f6d5ea2f2d3e8d226039cd31b4e426ac4f2d3d666a610c2116fde4735"),
    ("00000001", "01", "b63a380cb2897d521994a85234ee2c181b5f844d2c624c002677e9703449d2fb"
     "a551b3a8333bcdf5f2f7e08993d53923de3d64fcc68c034e717b9293fed7a421"),
]  # fmt: skip

# RIP-7212's first test case: hash, r, s, x, y.
P256_GOOD = bytes.fromhex(
    "4cee90eb86eaa050036147a12d49004b6b9c72bd725d39d4785011fe190f0b4d"
    "a73bd4903f0ce3b639bbbf6e8e80d16931ff4bcf5993d58468e8fb19086e8cac"
    "36dbcd03009df8c59286b162af3bd7fcc0450c9aa81be5d10d312af6c66b1d60"
    "4aebd3099c618202fcfe16ae7770b0c49ab5eadf74b754204a3bb6060e44eff3"
    "7618b065f9832de4ca6ca971a7a1adc826d0f7c00181a5fb2ddf79ae00b4e10e"
)


class EelsEvm:
    """As much of EELS's frame as a precompile sees."""

    def __init__(self, data: bytes) -> None:
        self.message = type("Message", (), {"data": Bytes(data)})()
        self.gas_left = Uint(GAS)
        self.output = Bytes(b"")


class Bounded(Computation):
    """One with as much gas as EELS's."""

    def consume_gas(self, amount: int, reason: str) -> None:
        super().consume_gas(amount, reason)
        if self.gas > GAS:
            raise OutOfGas(reason)


def run_ours(number: int, data: bytes) -> tuple[bytes, int] | None:
    """Output and gas, or None where it fails."""
    computation = Bounded(data)
    try:
        NATIVE[precompiles.address(number)](computation)
    except VMError:
        return None
    return computation.output, computation.gas


def run_eels(number: int, data: bytes) -> tuple[bytes, int] | None:
    """Output and gas, or None where it fails."""
    evm = EelsEvm(data)
    function: Any = PRE_COMPILED_CONTRACTS[Address(precompiles.address(number))]
    try:
        function(evm)
    except EthereumException:
        return None
    return bytes(evm.output), GAS - int(evm.gas_left)


def good_inputs(chance: random.Random) -> dict[int, list[bytes]]:
    """Input that each precompile accepts."""
    a, b = chance.randrange(1, BN_ORDER), chance.randrange(1, BLS_ORDER)
    g1, g2, bn1, bn2 = bls_g1(b), bls_g2(b + 1), bn_g1(a), bn_g2(a + 1)
    modexp = word(3) + word(2) + word(33) + chance.randbytes(38)
    return {
        0x01: [chance.randbytes(32) + word(27) + word(a) + word(a + 1)],
        0x02: [b"", chance.randbytes(77)],
        0x03: [b"", chance.randbytes(77)],
        0x04: [b"", chance.randbytes(77)],
        0x05: [modexp, word(1) + word(40) + word(32) + chance.randbytes(73)],
        0x06: [bn1 + bn_g1(3), bn1 + bytes(64), bn1],
        0x07: [bn1 + chance.randbytes(32), bn1 + word(BN_ORDER)],
        0x08: [bn1 + bn2, bn1 + bn2 + bn_g1(BN_ORDER - a) + bn2],
        0x09: [bytes.fromhex("0000000c" + BLAKE2_STATE + BLAKE2_REST + "01")],
        0x0A: [kzg_input(bytes.fromhex(COMMITMENT), word(5), bytes.fromhex(KZG_Y), bytes.fromhex(KZG_PROOF))],
        0x0B: [g1 + bls_g1(7), g1 + bytes(128), bls_g1_outside() + g1],
        0x0C: [g1 + chance.randbytes(32), g1 + word(3) + bls_g1(9) + word(BLS_ORDER + 5)],
        0x0D: [g2 + bls_g2(7), g2 + bytes(256)],
        0x0E: [g2 + chance.randbytes(32)],
        0x0F: [g1 + g2, g1 + bls_g2(2) + bls_g1(BLS_ORDER - b) + bls_g2(2)],
        0x10: [bytes(16) + b"\1" + chance.randbytes(47)],
        0x11: [bytes(16) + b"\1" + chance.randbytes(47) + bytes(16) + b"\2" + chance.randbytes(47)],
    }


def mutated(chance: random.Random, data: bytes) -> bytes:
    """The same with a little damage."""
    kind = chance.randrange(4)
    if kind == 0 or not data:
        return data + chance.randbytes(chance.choice([1, 32]))
    if kind == 1:
        return data[: chance.randrange(len(data))]
    at = chance.randrange(len(data))
    return data[:at] + bytes((data[at] ^ 1 << chance.randrange(8),)) + data[at + 1 :]


def compare(number: int, seed: int, damaged: int) -> None:
    chance = random.Random(seed)
    for data in good_inputs(chance)[number]:
        for each in (data, *[mutated(chance, data) for _ in range(damaged)]):
            assert run_ours(number, each) == run_eels(number, each), (number, each.hex())


# EELS computes pairings in Python, a second for each; point evaluation costs a second to set up.
SLOW_IN_EELS = (0x08, 0x0A, 0x0F)


@pytest.mark.parametrize("number", range(0x01, 0x12))
def test_eels_agrees(number: int) -> None:
    compare(number, number, 1 if number in SLOW_IN_EELS else 6)


@pytest.mark.slow
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("number", range(0x01, 0x12))
def test_eels_agrees_long(number: int) -> None:
    for seed in range(100, 110 if number in SLOW_IN_EELS else 160):
        compare(number, seed, 8)


@pytest.mark.parametrize(("rounds", "flag", "output"), BLAKE2_VECTORS)
def test_blake2f_vectors_of_eip_152(rounds: str, flag: str, output: str) -> None:
    data = bytes.fromhex(rounds + BLAKE2_STATE + BLAKE2_REST + flag)
    assert run(NATIVE, 0x09, data) == (bytes.fromhex(output), int(rounds, 16))


def test_blake2f_refusals_of_eip_152() -> None:
    good = bytes.fromhex("0000000c" + BLAKE2_STATE + BLAKE2_REST + "01")
    for bad in (b"", good[1:], b"\0" + good, good[:-1] + b"\2"):
        assert run(NATIVE, 0x09, bad) is None


def test_p256_vectors() -> None:
    assert run(NATIVE, precompiles.P256_VERIFY, P256_GOOD) == (word(1), 3_450)
    chance = random.Random(7)
    for data in (P256_GOOD, b"\x3c" + P256_GOOD[1:], *[mutated(chance, P256_GOOD) for _ in range(20)]):
        evm: Any = EelsEvm(data)
        eels_p256(evm)
        assert run(NATIVE, precompiles.P256_VERIFY, data) == (bytes(evm.output), 3_450)


BLOCKED = ("mclbn256", "py_arkworks_bls12381", "blake2b")
IN_A_PROCESS = """
import json, sys
for name in json.loads(sys.argv[1]):
    sys.modules[name] = None
from eth.exceptions import VMError
from flashblocks.execution import precompiles
from flashblocks.execution.chain_spec import ISTHMUS
from tests.execution.rules.test_precompiles import run
table = precompiles.table(ISTHMUS)
for number, data in json.load(sys.stdin):
    result = run(table, number, bytes.fromhex(data))
    print(json.dumps(None if result is None else [result[0].hex(), result[1]]))
"""


def test_without_any_native_wheel_everything_is_the_same() -> None:
    chance = random.Random(11)
    cases = []
    for number, inputs in good_inputs(chance).items():
        if number not in SLOW_IN_EELS:
            cases += [(number, data.hex()) for data in (*inputs, mutated(chance, inputs[0]))]
    cases.append((0x08, b"".join((bn_g1(2), bn_g2(3))).hex()))
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", IN_A_PROCESS, json.dumps(BLOCKED)],
        input=json.dumps(cases), capture_output=True, text=True, check=True, timeout=55,
    )  # fmt: skip
    found = [json.loads(line) for line in done.stdout.splitlines()]
    for (number, text), theirs in zip(cases, found, strict=True):
        ours = run_ours(number, bytes.fromhex(text))
        assert theirs == (None if ours is None else [ours[0].hex(), ours[1]]), number


def test_gas_is_charged_before_the_work() -> None:
    class Poor(Computation):
        def consume_gas(self, amount: int, reason: str) -> None:
            raise VMError(f"cannot pay {amount} for {reason}")

    costly = bytes.fromhex("ffffffff" + BLAKE2_STATE + BLAKE2_REST + "01")  # four thousand million rounds
    for number, inputs in {**good_inputs(random.Random(3)), 0x09: [costly]}.items():
        with pytest.raises(VMError, match="cannot pay"):
            NATIVE[precompiles.address(number)](Poor(inputs[0]))
