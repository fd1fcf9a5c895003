"""The precompiled contracts of each fork: py-evm's, OP's P256VERIFY, and OP's limits on input size."""

from collections.abc import Callable, Mapping
from typing import Any

from eth.exceptions import OutOfGas
from eth.vm.forks.cancun.computation import CANCUN_PRECOMPILES
from eth.vm.forks.prague.computation import PRAGUE_PRECOMPILES

from flashblocks.execution.chain_spec import Rules
from flashblocks.execution.p256 import p256_verify

Precompile = Callable[[Any], Any]
Table = Mapping[bytes, Precompile]

P256_GAS = 3_450  # RIP-7212, Fjord

BN254_PAIRING = 0x08
BLS_G1_MSM, BLS_G2_MSM, BLS_PAIRING = 0x0C, 0x0E, 0x0F
P256_VERIFY = 0x100

# Input limits in bytes; a longer input fails and takes all gas (specs: granite, isthmus and jovian exec-engine.md).
GRANITE_LIMITS_BYTES = {BN254_PAIRING: 112_687}
ISTHMUS_LIMITS_BYTES = {BLS_G1_MSM: 513_760, BLS_G2_MSM: 488_448, BLS_PAIRING: 235_008}
JOVIAN_LIMITS_BYTES = {BN254_PAIRING: 81_984, BLS_G1_MSM: 288_960, BLS_G2_MSM: 278_784, BLS_PAIRING: 156_672}


def address(number: int) -> bytes:
    """The address of a precompile."""
    return number.to_bytes(20, "big")


def table(rules: Rules, native: bool = True) -> dict[bytes, Precompile]:
    """Address → function of every precompile under these rules; without `native`, all of them py-evm's."""
    found: dict[bytes, Precompile] = dict(PRAGUE_PRECOMPILES if rules.isthmus else CANCUN_PRECOMPILES)
    found[address(P256_VERIFY)] = run_p256
    limits = dict(GRANITE_LIMITS_BYTES)
    if rules.isthmus:
        limits.update(ISTHMUS_LIMITS_BYTES)
    if rules.jovian:
        limits.update(JOVIAN_LIMITS_BYTES)
    for number, limit in limits.items():
        found[address(number)] = limited(found[address(number)], limit)
    return found


def limited(run: Precompile, limit_bytes: int) -> Precompile:
    """The same precompile, failing for an input above `limit_bytes`."""

    def run_limited(computation: Any) -> Any:
        if len(computation.msg.data) > limit_bytes:
            raise OutOfGas(f"precompile input above {limit_bytes} bytes")
        return run(computation)

    return run_limited


def run_p256(computation: Any) -> Any:
    """P256VERIFY (RIP-7212): 32 bytes of 1 for a valid signature, nothing for any other input."""
    computation.consume_gas(P256_GAS, "P256VERIFY")
    if p256_verify(computation.msg.data):
        computation.output = bytes(31) + b"\1"
    return computation
