"""The exchange of the tests, compiled from the sources beside this file: token, pair, factory, router."""

from functools import cache
from pathlib import Path
from typing import Any

from web3 import Web3

SOURCES = Path(__file__).parent / "contracts"


@cache
def compiled(name: str) -> dict[str, Any]:
    """ABI and byte codes of one contract."""
    import vyper

    source = (SOURCES / f"{name}.vy").read_text()
    found: dict[str, Any] = vyper.compile_code(source, output_formats=["abi", "bytecode", "blueprint_bytecode"])
    return found


def interface(name: str, address: str | None = None) -> Any:
    """web3's view of a contract: encodes calls, decodes events. Needs no connection."""
    return Web3().eth.contract(address=address, abi=compiled(name)["abi"], bytecode=compiled(name)["bytecode"])


def deployment(name: str, *arguments: Any) -> bytes:
    """Initcode with its arguments."""
    return bytes.fromhex(interface(name).constructor(*arguments).data_in_transaction[2:])


def blueprint(name: str) -> bytes:
    """Initcode that deploys the contract as an ERC-5202 blueprint."""
    return bytes.fromhex(compiled(name)["blueprint_bytecode"].removeprefix("0x"))


def call_data(name: str, function: str, *arguments: Any) -> bytes:
    """Calldata of a function."""
    return bytes.fromhex(interface(name).encode_abi(function, args=list(arguments))[2:])
