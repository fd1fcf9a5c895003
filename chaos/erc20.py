"""A small ERC-20 token in EVM assembly of our own, for load: real storage, a real event, no compiler needed."""

from __future__ import annotations

from flashblocks.execution.assembler import assemble, selector
from flashblocks.wire.keccak import keccak256

SUPPLY = 10**30
TRANSFER_GAS = 90_000
DEPLOY_GAS = 400_000


def runtime_code() -> bytes:
    """`transfer`, `balanceOf`, `totalSupply`, `decimals`; balances are a mapping in slot 0. Other calls revert."""
    entries = {
        "transfer": "transfer(address,uint256)",
        "balance": "balanceOf(address)",
        "supply": "totalSupply()",
        "decimals": "decimals()",
    }
    dispatch = " ".join(f"dup1 0x{selector(name).hex()} eq @{label} jumpi" for label, name in entries.items())
    event = "0x" + keccak256(b"Transfer(address,address,uint256)").hex()
    # Stack comments: [amount] – the amount stays at the bottom while both balances are changed.
    return assemble(f"""
        push0 calldataload 224 shr {dispatch}
        fail: push0 push0 revert
        transfer: pop
          36 calldataload
          caller push0 mstore 64 push0 keccak256
          dup1 sload dup3 dup2 lt @fail jumpi
          dup3 swap1 sub swap1 sstore
          4 calldataload 96 shl 96 shr push0 mstore 64 push0 keccak256
          dup1 sload dup3 add swap1 sstore
          push0 mstore
          4 calldataload 96 shl 96 shr caller {event} 32 push0 log3
          1 @answer jump
        balance: pop
          4 calldataload 96 shl 96 shr push0 mstore 64 push0 keccak256 sload @answer jump
        supply: pop {SUPPLY} @answer jump
        decimals: pop 18 @answer jump
        answer: push0 mstore 32 push0 return
    """)


def deployment_code() -> bytes:
    """Code that gives the whole supply to the deployer and installs the token."""
    runtime = runtime_code()
    head = f"{SUPPLY} caller push0 mstore 64 push0 keccak256 sstore"
    length = f"0x{len(runtime):04x}"
    # The offset of the runtime is the length of all that comes before it, which does not depend on its value.
    before = len(assemble(f"{head} {length} 0x0000 push0 codecopy {length} push0 return"))
    return assemble(f"{head} {length} 0x{before:04x} push0 codecopy {length} push0 return") + runtime


def transfer_data(to: bytes, amount: int) -> bytes:
    """Calldata of ``transfer(to, amount)``."""
    return selector("transfer(address,uint256)") + to.rjust(32, b"\0") + amount.to_bytes(32, "big")


def balance_data(owner: bytes) -> bytes:
    """Calldata of ``balanceOf(owner)``."""
    return selector("balanceOf(address)") + owner.rjust(32, b"\0")
