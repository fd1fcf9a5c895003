"""A small ERC-20 token in EVM assembly of our own, for load: real storage, a real event, no compiler needed."""

from __future__ import annotations

from flashblocks.wire.keccak import keccak256

SUPPLY = 10**30
TRANSFER_GAS = 90_000
DEPLOY_GAS = 400_000

_OPCODES = {
    "ADD": 0x01, "SUB": 0x03, "LT": 0x10, "EQ": 0x14, "SHL": 0x1B, "SHR": 0x1C, "KECCAK256": 0x20, "CALLER": 0x33,
    "CALLDATALOAD": 0x35, "CODECOPY": 0x39, "POP": 0x50, "MSTORE": 0x52, "SLOAD": 0x54, "SSTORE": 0x55, "JUMP": 0x56,
    "JUMPI": 0x57, "JUMPDEST": 0x5B, "PUSH0": 0x5F, "DUP1": 0x80, "DUP2": 0x81, "DUP3": 0x82, "SWAP1": 0x90,
    "LOG3": 0xA3, "RETURN": 0xF3, "REVERT": 0xFD,
}  # fmt: skip
_PUSH1 = 0x60
_JUMP_TARGET_BYTES = 2


def selector(signature: str) -> bytes:
    """The four bytes that name a function."""
    return keccak256(signature.encode())[:4]


def assemble(source: str) -> bytes:
    """Bytecode of a text of opcodes, numbers (pushed at their length), ``:label`` definitions and ``@label`` uses."""
    code = bytearray()
    labels: dict[str, int] = {}
    uses: list[tuple[int, str]] = []
    for word in source.split():
        if word.startswith(":"):
            labels[word[1:]] = len(code)
            code.append(_OPCODES["JUMPDEST"])
        elif word.startswith("@"):
            code.append(_PUSH1 + _JUMP_TARGET_BYTES - 1)
            uses.append((len(code), word[1:]))
            code.extend(bytes(_JUMP_TARGET_BYTES))
        elif word in _OPCODES:
            code.append(_OPCODES[word])
        else:
            digits = bytes.fromhex(word[2:]) if word.startswith("0x") else _minimal(int(word))
            code.append(_PUSH1 + len(digits) - 1)
            code.extend(digits)
    for position, label in uses:
        code[position : position + _JUMP_TARGET_BYTES] = labels[label].to_bytes(_JUMP_TARGET_BYTES, "big")
    return bytes(code)


def _minimal(number: int) -> bytes:
    return number.to_bytes((number.bit_length() + 7) // 8 or 1, "big")


def runtime_code() -> bytes:
    """`transfer`, `balanceOf`, `totalSupply`, `decimals`; balances are a mapping in slot 0. Other calls revert."""
    entries = {
        "transfer": "transfer(address,uint256)",
        "balance": "balanceOf(address)",
        "supply": "totalSupply()",
        "decimals": "decimals()",
    }
    dispatch = " ".join(f"DUP1 0x{selector(name).hex()} EQ @{label} JUMPI" for label, name in entries.items())
    event = "0x" + keccak256(b"Transfer(address,address,uint256)").hex()
    # Stack comments: [amount] – the amount stays at the bottom while both balances are changed.
    return assemble(f"""
        PUSH0 CALLDATALOAD 224 SHR {dispatch}
        :fail PUSH0 PUSH0 REVERT
        :transfer POP
          36 CALLDATALOAD
          CALLER PUSH0 MSTORE 64 PUSH0 KECCAK256
          DUP1 SLOAD DUP3 DUP2 LT @fail JUMPI
          DUP3 SWAP1 SUB SWAP1 SSTORE
          4 CALLDATALOAD 96 SHL 96 SHR PUSH0 MSTORE 64 PUSH0 KECCAK256
          DUP1 SLOAD DUP3 ADD SWAP1 SSTORE
          PUSH0 MSTORE
          4 CALLDATALOAD 96 SHL 96 SHR CALLER {event} 32 PUSH0 LOG3
          1 @answer JUMP
        :balance POP
          4 CALLDATALOAD 96 SHL 96 SHR PUSH0 MSTORE 64 PUSH0 KECCAK256 SLOAD @answer JUMP
        :supply POP {SUPPLY} @answer JUMP
        :decimals POP 18 @answer JUMP
        :answer PUSH0 MSTORE 32 PUSH0 RETURN
    """)


def deployment_code() -> bytes:
    """Code that gives the whole supply to the deployer and installs the token."""
    runtime = runtime_code()
    head = f"{SUPPLY} CALLER PUSH0 MSTORE 64 PUSH0 KECCAK256 SSTORE"
    length = f"0x{len(runtime):04x}"
    # The offset of the runtime is the length of all that comes before it, which does not depend on its value.
    before = len(assemble(f"{head} {length} 0x0000 PUSH0 CODECOPY {length} PUSH0 RETURN"))
    return assemble(f"{head} {length} 0x{before:04x} PUSH0 CODECOPY {length} PUSH0 RETURN") + runtime


def transfer_data(to: bytes, amount: int) -> bytes:
    """Calldata of ``transfer(to, amount)``."""
    return selector("transfer(address,uint256)") + to.rjust(32, b"\0") + amount.to_bytes(32, "big")


def balance_data(owner: bytes) -> bytes:
    """Calldata of ``balanceOf(owner)``."""
    return selector("balanceOf(address)") + owner.rjust(32, b"\0")
