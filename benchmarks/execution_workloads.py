"""What the execution benchmark runs: a funded chain with a token, and code that was written to be slow."""

from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any

import msgspec
from trie import HexaryTrie

from flashblocks.execution import (
    ChainSpec,
    Header,
    OpenBlock,
    PayloadAttributes,
    WorldState,
    default_genesis,
    load_genesis,
    trie,
)
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.assembler import assemble
from flashblocks.execution.code import Code
from flashblocks.execution.fees import SEQUENCER_FEE_VAULT
from flashblocks.execution.keccak import hashed_address, hashed_slot, keccak256
from flashblocks.execution.rlp import encode_uint
from flashblocks.execution.signing import sign_transaction
from flashblocks.execution.state import Account
from flashblocks.sequencing.deposits import L1Info, encode_l1_info

TOKEN = b"\x70" * 20
ATTACKER = b"\x71" * 20
TRANSFER_TOPIC = keccak256(b"Transfer(address,address,uint256)")

TOKEN_CODE = assemble(
    f"""
    push0 calldataload 224 shr dup1 0xa9059cbb eq @transfer jumpi
    bad: push0 push0 revert
    transfer:
        caller push0 mstore push0 32 mstore 64 push0 keccak256   ; slot of the sender's balance
        dup1 sload 36 calldataload dup2 dup2 gt @bad jumpi       ; (slot, balance, amount)
        dup1 swap2 sub swap1 swap2 sstore                        ; (amount)
        4 calldataload push0 mstore 64 push0 keccak256           ; (amount, slot of the receiver's)
        dup1 sload dup3 add swap1 sstore
        push0 mstore
        4 calldataload caller 0x{TRANSFER_TOPIC.hex()} 32 push0 log3
        1 push0 mstore 32 push0 return
    """
)


def erc20_transfer(to: bytes, amount: int) -> bytes:
    """Calldata of transfer(address,uint256)."""
    return bytes.fromhex("a9059cbb") + to.rjust(32, b"\0") + amount.to_bytes(32, "big")


def balance_slot(holder: bytes) -> int:
    """Where the token keeps a balance."""
    return int.from_bytes(keccak256(holder.rjust(32, b"\0") + bytes(32)), "big")


def loop(body: str, before: str = "") -> bytes:
    """Code that repeats `body` until the gas is gone."""
    return assemble(f"{before} again: {body} @again jump")


def call_precompile(number: int, size: int, prepare: str = "", output: int = 32) -> bytes:
    """A loop of calls to a precompile with `size` bytes of memory as input."""
    return loop(f"{output} 4096 {size} push0 0x{number:040x} gas staticcall pop", prepare)  # the input stays


def words(data: bytes) -> str:
    """Instructions that write `data` to memory from 0 on."""
    padded = data + bytes(-len(data) % 32)
    return " ".join(f"0x{padded[at : at + 32].hex()} {at} mstore" for at in range(0, len(padded), 32))


BOMB_ENTRIES = 3_300


def compile_bomb() -> bytes:
    """Creates contracts without end, each a new initcode of thousands of entry points that head a long trace each.

    An entry is run for four instructions, as its conditional jump is always taken; a compiler that follows the other
    side goes through hundreds of entries each time.
    """
    head = "start: 1 add dup1 {limit} eq @end jumpi dup1 6 mul @entries add jump end: stop entries:"
    bomb = assemble("push0 " + head.format(limit=BOMB_ENTRIES))[:-1]
    start = bomb.index(b"\x5b")
    bomb += (b"\x5b\x80\x61" + start.to_bytes(2, "big") + b"\x57") * BOMB_ENTRIES
    size = len(bomb)
    prefix = f"{size} @bomb push0 codecopy push0 again: 1 add dup1 {size} mstore {size + 32} push0 push0 create pop"
    return assemble(prefix + " @again jump bomb:")[:-1] + bomb


INITCODE_BYTES = 49_152  # EIP-3860's limit


def large_initcode(filling: bytes) -> bytes:
    """Creates without end from the largest initcode there is, another one each time, which jumps to its last byte.

    Whoever runs code must find its jump destinations first; this makes that as much work per gas as can be.
    """
    # The counter is the data of a PUSH32 at the beginning, so that one MSTORE changes it.
    code = numbered_code(0, INITCODE_BYTES, filling)
    body = f"1 add dup1 1 mstore {INITCODE_BYTES} push0 push0 create pop"
    head = f"{INITCODE_BYTES} @code push0 codecopy push0 again: {body} @again jump code:"
    return assemble(head)[:-1] + code


def numbered_code(number: int, size: int, filling: bytes) -> bytes:
    """Code that pushes its number and jumps over all of its filling to its last byte."""
    start = assemble(f"0x{number:064x} pop {size - 1} jump")
    count, rest = divmod(size - len(start), len(filling))
    return start + filling * (count - (rest == 0)) + b"[" * (rest or len(filling))


def many_contracts() -> bytes:
    """Calls one large contract after the other, each of which is met for the first time."""
    return loop(f"1 add push0 push0 push0 push0 push0 dup6 0x{FIRST_OF_MANY.hex()} add gas call pop", "push0")


MANY_CONTRACTS = 600
FIRST_OF_MANY = b"\x72" * 20


def contract_of_many(index: int) -> bytes:
    """A contract of the largest size; no two are alike."""
    return numbered_code(index, 24_576, b"\x5b\x60\x00")


BN_G1 = bytes(31) + b"\1" + bytes(31) + b"\2"
BN_G2 = bytes.fromhex(
    "198e9393920d483a7260bfb731fb5d25f1aa493335a9e71297e485b7aef312c21800deef121f1e76426a00665e5c4479674322d4f75edadd46debd5cd992f6ed"
    "090689d0585ff075ec9e99ad690c3395bc4b313370b38ef355acdadcd122975b12c85ea5db8c6deb4aab71808dcb408fe3d1e7690c43d37b4ce6cc0166fa7daa"
)
BLAKE2_INPUT = (200_000).to_bytes(4, "big") + bytes(208) + b"\1"
MODEXP_INPUT = b"".join(n.to_bytes(32, "big") for n in (128, 32, 128)) + b"\xfe" * 160 + b"\xff" * 128
# A long exponent over a modulus of one word: the price counts words, and forgets what the smallest of them cost.
MODEXP_ONE_WORD = b"".join(n.to_bytes(32, "big") for n in (8, 16_000, 8)) + b"\xfe" * 8 + b"\xff" * 16_008


def _bls_inputs() -> tuple[bytes, bytes]:
    from py_ecc.optimized_bls12_381 import G1, G2, normalize

    g1 = b"".join(int(c).to_bytes(64, "big") for c in normalize(G1))
    x, y = normalize(G2)
    g2 = b"".join(int(c).to_bytes(64, "big") for c in (*x.coeffs, *y.coeffs))
    return (g1 + b"\xfe" * 32) * 16, (g1 + g2) * 4


def _kzg_input() -> bytes:
    infinity = b"\xc0" + bytes(47)  # the zero polynomial is zero everywhere
    return b"\1" + sha256(infinity).digest()[1:] + (5).to_bytes(32, "big") + bytes(32) + infinity * 2


def _p256_input() -> bytes:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec, utils

    key = ec.derive_private_key(12345, ec.SECP256R1())
    r, s = utils.decode_dss_signature(key.sign(b"\x21" * 32, ec.ECDSA(utils.Prehashed(hashes.SHA256()))))
    point = key.public_key().public_numbers()
    return b"\x21" * 32 + b"".join(n.to_bytes(32, "big") for n in (r, s, point.x, point.y))


def _hostile() -> dict[str, bytes]:
    g1_msm, bls_pairing = _bls_inputs()
    self_call = f"push0 push0 push0 push0 push0 0x{ATTACKER.hex()} gas call pop stop"
    return {
        "empty loop": loop(""),
        "additions": loop("1 add 3 mul 7 xor", "push0"),
        "calls to an empty account": loop("push0 push0 push0 push0 push0 0x99 gas call pop"),
        "calls to a contract": loop(f"push0 push0 push0 push0 0x{TOKEN.hex()} 3000 staticcall pop"),
        "recursion": assemble(self_call),
        "creations": loop("push0 push0 push0 create pop"),
        "keccak of a word": loop("32 push0 keccak256 pop"),
        "keccak of 100 kB": loop("100000 push0 keccak256 pop"),
        "copies of 100 kB": loop("100000 push0 32 mcopy", "1 200000 mstore"),
        "fresh slots": loop("1 add dup1 dup1 sstore", "push0"),
        "cold reads": loop("1 add dup1 sload pop", "push0"),
        "cold accounts": loop("1 add dup1 balance pop", "1000"),
        "logs": loop("1 2 3 4 32 push0 log4"),
        "exponentiation": loop("0x" + "ff" * 32 + " 3 exp pop"),
        "calls with 500 kB of input": loop(
            f"push0 push0 500000 push0 push0 0x{TOKEN.hex()} 2500 call pop", "1 500000 mstore"
        ),
        "calls to nobody with 500 kB of input": loop(
            "push0 push0 500000 push0 push0 0x99 gas call pop", "1 500000 mstore"
        ),
        "bn254 additions with 500 kB of input": loop("64 1000 500000 push0 6 400 staticcall pop", "1 500000 mstore"),
        "bls additions with 500 kB of input": loop("64 1000 500000 push0 11 400 staticcall pop", "1 500000 mstore"),
        "keccaks of 2 MB in a row": assemble("1 2000000 mstore" + " 2000000 push0 keccak256 pop" * 60 + " push0 jump"),
        "one long blake2f": assemble(
            "13500000 224 shl push0 mstore 1 212 mstore8 64 224 213 push0 9 gas staticcall pop push0 jump"
        ),
        "compile bomb": compile_bomb(),
        "large initcodes of jump destinations": large_initcode(b"\x5b"),
        "large initcodes of pushes": large_initcode(b"\x60\x00"),
        "large contracts met once": many_contracts(),
        "ecrecover": call_precompile(1, 128, words(b"\x14" * 32 + bytes(31) + b"\x1b" + b"\x15" * 64)),
        "sha256 of 1 kB": call_precompile(2, 1024),
        "ripemd160 of 1 kB": call_precompile(3, 1024),
        "modexp of one word": call_precompile(5, len(MODEXP_ONE_WORD), words(MODEXP_ONE_WORD), 8),
        "modexp": call_precompile(5, len(MODEXP_INPUT), words(MODEXP_INPUT), 128),
        "bn254 addition": call_precompile(6, 128, words(BN_G1 + BN_G1), 64),
        "bn254 multiplication": call_precompile(7, 96, words(BN_G1 + b"\xfe" * 32), 64),
        "bn254 pairing": call_precompile(8, 384, words((BN_G1 + BN_G2) * 2)),
        "blake2f": call_precompile(9, len(BLAKE2_INPUT), words(BLAKE2_INPUT), 64),
        "bls g1 msm": call_precompile(0x0C, len(g1_msm), words(g1_msm), 128),
        "bls pairing": call_precompile(0x0F, len(bls_pairing), words(bls_pairing)),
        "point evaluation": call_precompile(10, 192, words(_kzg_input())),
        "p256": call_precompile(0x100, 160, words(_p256_input())),
    }


HOSTILE = _hostile()


@dataclass
class World:
    """A chain to build one block on."""

    spec: ChainSpec
    head: Header
    state: WorldState
    nonces: dict[int, int] = field(default_factory=dict)

    def attributes(self) -> PayloadAttributes:
        return PayloadAttributes(
            timestamp=self.head.timestamp + 2,
            prev_randao=bytes(32),
            fee_recipient=SEQUENCER_FEE_VAULT,
            parent_beacon_block_root=bytes(32),
            gas_limit=10**9,
        )

    def l1_deposit(self) -> bytes:
        info: dict[str, Any] = {"number": 7, "timestamp": 1, "base_fee": 10**9, "blob_base_fee": 1, "hash": bytes(32)}
        info |= {"sequence_number": 0, "batcher_hash": bytes(32), "base_fee_scalar": 1, "blob_base_fee_scalar": 1}
        return encode_l1_info(L1Info(**info))

    def open(self) -> OpenBlock:
        block = OpenBlock.start(self.spec, self.head, self.state, self.attributes())
        block.append(self.l1_deposit())
        return block

    def send(self, account: int, to: bytes | None, **fields: Any) -> bytes:
        nonce = self.nonces.get(account, 0)
        self.nonces[account] = nonce + 1
        given: dict[str, Any] = {"max_fee_per_gas": 10**9, "max_priority_fee_per_gas": 10**3, **fields}
        return sign_transaction(TEST_ACCOUNTS[account].private_key, chain_id=901, nonce=nonce, to=to, **given)

    def nodes(self) -> dict[bytes, bytes]:
        """The state as a database of trie nodes, for stock py-evm."""
        nodes: dict[bytes, bytes] = {}
        accounts = HexaryTrie(nodes)
        for key, account in trie.items(self.state.node):
            assert isinstance(account, Account)
            storage = HexaryTrie(nodes)
            for slot, value in trie.items(account.storage):
                assert isinstance(value, int)
                storage[bytes.fromhex(slot)] = encode_uint(value)
            accounts[bytes.fromhex(key)] = account.rlp()
            nodes[account.code.hash] = account.code.raw
        return nodes


def world(hostile: str | None = None) -> World:
    """The default genesis with a token that everybody owns, and perhaps one hostile contract."""
    spec, block, state = load_genesis(default_genesis(gas_limit=10**9))
    slots = {hashed_slot(balance_slot(account.address)): 10**18 for account in TEST_ACCOUNTS}
    accounts = {TOKEN: Account(1, 0, Code.of(TOKEN_CODE), trie.update(None, dict(slots)))}
    if hostile:
        accounts[ATTACKER] = Account(1, 10**18, Code.of(HOSTILE[hostile]), None)
    if hostile == "large contracts met once":
        first = int.from_bytes(FIRST_OF_MANY, "big")
        for index in range(1, MANY_CONTRACTS):
            address = (first + index).to_bytes(20, "big")
            accounts[address] = Account(1, 0, Code.of(contract_of_many(index)), None)
    state = state.with_accounts({hashed_address(address): account for address, account in accounts.items()})
    return World(spec, msgspec.structs.replace(block.header, state_root=state.root), state)


def hostile_transaction(chain: World, gas_limit: int) -> bytes:
    """A call that spends all its gas on the hostile contract."""
    return chain.send(0, ATTACKER, gas_limit=gas_limit)
