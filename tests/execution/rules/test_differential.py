"""Random programs and transactions: compiled, interpreted, and EELS agree on gas, output, logs and state root."""

import random
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashblocks.execution import ChainSpec, InvalidTransaction, OpenBlock, PayloadAttributes, WorldState
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.code import NO_CODE, Code
from flashblocks.execution.compiler import program
from flashblocks.execution.fees import BASE_FEE_VAULT
from flashblocks.execution.header import Header
from flashblocks.execution.keccak import hashed_address, hashed_slot
from flashblocks.execution.p256 import p256_verify
from flashblocks.execution.signing import sign_authorization, sign_transaction
from flashblocks.execution.state import Account
from flashblocks.execution.trie import update

_recursion_limit = sys.getrecursionlimit()
from ethereum.exceptions import EthereumException  # noqa: E402
from ethereum.forks.prague import state as eels_state  # noqa: E402
from ethereum.forks.prague.fork import process_transaction  # noqa: E402
from ethereum.forks.prague.fork_types import Account as EelsAccount  # noqa: E402
from ethereum.forks.prague.fork_types import Address  # noqa: E402
from ethereum.forks.prague.transactions import LegacyTransaction, decode_transaction  # noqa: E402
from ethereum.forks.prague.trie import trie_get  # noqa: E402
from ethereum.forks.prague.vm import BlockEnvironment, BlockOutput  # noqa: E402
from ethereum.forks.prague.vm.gas import charge_gas  # noqa: E402
from ethereum.forks.prague.vm.precompiled_contracts.mapping import PRE_COMPILED_CONTRACTS  # noqa: E402
from ethereum_rlp import rlp as eels_rlp  # noqa: E402
from ethereum_types.bytes import Bytes, Bytes32  # noqa: E402
from ethereum_types.numeric import U64, U256, Uint  # noqa: E402

sys.setrecursionlimit(max(_recursion_limit, 40_000))  # EELS sets its own on import


def eels_p256(evm: Any) -> None:
    """OP's own precompile, which Ethereum's Prague does not have, in EELS's form."""
    charge_gas(evm, Uint(3_450))
    if p256_verify(bytes(evm.message.data)):
        evm.output = Bytes(bytes(31) + b"\1")


PRE_COMPILED_CONTRACTS[Address(bytes(18) + b"\1\0")] = eels_p256

CONTRACTS = [bytes([0x51 + n]) * 20 for n in range(3)]
COINBASE = b"\x66" * 20
SPEC = ChainSpec(chain_id=901)
PARENT = Header(
    parent_hash=b"\1" * 32,
    fee_recipient=COINBASE,
    state_root=bytes(32),
    number=0,
    gas_limit=100_000_000,
    timestamp=1_000,
    base_fee_per_gas=1_000_000,
    extra_data=b"\0" + (250).to_bytes(4, "big") + (6).to_bytes(4, "big"),
)
ATTRIBUTES = PayloadAttributes(
    timestamp=1_002,
    prev_randao=b"\x0a" * 32,
    fee_recipient=COINBASE,
    parent_beacon_block_root=bytes(32),
    gas_limit=100_000_000,
)

# Every opcode that is safe with random arguments; memory, storage, jumps and calls come with arguments of their own.
PLAIN = [
    *range(0x01, 0x0C),
    *range(0x10, 0x1E),
    *range(0x30, 0x4B),
    *range(0x50, 0x5B),
    0x5C,
    0x5D,
    0x5E,
    0x5F,
    0x00,
    0xFE,
    0x0C,
]
EDGES = [0, 1, 2, 31, 32, 33, 64, 255, 256, 257, 2**255, 2**256 - 1, 2**255 - 1, 2**128, 2**64, 2**256 - 32]


class ProgramMaker:
    """Random code that reaches deep: sane arguments where they matter, nonsense elsewhere."""

    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.code = bytearray()
        self.labels: list[int] = []
        self.jumps: list[int] = []

    def push(self, value: int) -> None:
        if value == 0 and self.chance.random() < 0.5:
            self.code.append(0x5F)
            return
        data = value.to_bytes(max(1, (value.bit_length() + 7) // 8), "big")
        self.code += bytes((0x5F + len(data),)) + data

    def word(self) -> int:
        draw = self.chance.random()
        if draw < 0.45:
            return self.chance.randrange(70)
        if draw < 0.7:
            return self.chance.choice(EDGES)
        if draw < 0.9:
            return self.chance.getrandbits(256)
        return int.from_bytes(self.chance.choice(CONTRACTS), "big")

    def small(self, *limits: int) -> None:
        for limit in limits:
            self.push(self.chance.randrange(limit))

    def call(self) -> None:
        kind = self.chance.choice([0xF1, 0xF2, 0xF4, 0xFA])
        self.small(64, 64, 64, 64)
        if kind in (0xF1, 0xF2):
            self.push(self.chance.choice([0, 0, 1, 5]))
        targets = [
            *CONTRACTS,
            bytes(19) + bytes([self.chance.choice([1, 2, 3, 4, 5, 9])]),
            b"\x99" * 20,
            TEST_ACCOUNTS[2].address,
        ]
        self.push(int.from_bytes(self.chance.choice(targets), "big"))
        if self.chance.random() < 0.5:
            self.code.append(0x5A)
        else:
            self.small(60_000)
        self.code.append(kind)

    def create(self) -> None:
        init = bytes(
            self.chance.choice([0x5F, 0x60, 0x00, 0xF3, 0xFD, 0xFF, 0x33, 0x30, 0x55])
            for _ in range(self.chance.randrange(9))
        )
        if self.chance.random() < 0.5:
            init = bytes.fromhex(
                self.chance.choice(
                    ["60015f5260205ff3", "33ff", "6001600255", "60ef5f5360015ff3", "5f5ffd", "60055f55305f5260205ff3"]
                )
            )
        self.push(int.from_bytes(init.ljust(32, b"\0"), "big"))
        self.code += b"\x5f\x52"
        if self.chance.random() < 0.4:
            self.push(self.chance.randrange(2))
            self.small(40, 3)
            self.push(self.chance.choice([0, 0, 1]))
            self.code.append(0xF5)
        else:
            self.small(40, 3)
            self.push(self.chance.choice([0, 0, 1]))
            self.code.append(0xF0)

    def step(self) -> None:
        draw = self.chance.random()
        if draw < 0.40:
            self.push(self.word())
        elif draw < 0.50:
            self.code.append(self.chance.choice([0x80, 0x81, 0x82, 0x83, 0x85, 0x8F, 0x90, 0x91, 0x92, 0x93, 0x97]))
        elif draw < 0.57:
            self.labels.append(len(self.code))
            self.code.append(0x5B)
        elif draw < 0.65:
            if self.chance.random() < 0.7:
                self.push(self.word() % 3)
            self.code += b"\x61\0\0"
            self.jumps.append(len(self.code) - 2)
            self.code.append(self.chance.choice([0x56, 0x57, 0x57]))
        elif draw < 0.74:
            self.small(200, 200)
            self.code.append(self.chance.choice([0x20, 0x52, 0x53, 0xF3, 0xFD, 0xA0, 0x51]))
        elif draw < 0.76:
            self.small(3, 3, 3, 40, 200)
            self.code.append(self.chance.choice([0xA1, 0xA2, 0xA3]))
        elif draw < 0.78:
            self.small(200, 200, 200)
            self.code.append(self.chance.choice([0x37, 0x39, 0x5E, 0x3E, 0x3E]))
        elif draw < 0.84:
            self.call()
        elif draw < 0.91:
            self.small(4)
            if self.chance.random() < 0.6:
                self.small(3)
            self.code.append(self.chance.choice([0x54, 0x55, 0x55, 0x55, 0x5C, 0x5D]))
        elif draw < 0.93:
            self.create()
        elif draw < 0.935:
            self.code.append(0xFF)
        elif draw < 0.95:
            self.code.append(0x5A)
        else:
            self.code.append(self.chance.choice(PLAIN))

    def make(self) -> bytes:
        for _ in range(self.chance.choice([0, 6, 12, 17])):
            self.push(self.word())
        for _ in range(self.chance.randrange(3, 60)):
            self.step()
        for at in self.jumps:
            target = self.chance.randrange(len(self.code) + 3)
            if self.labels and self.chance.random() < 0.93:
                target = self.chance.choice(self.labels)
            self.code[at : at + 2] = target.to_bytes(2, "big")
        return bytes(self.code)


def random_world(chance: random.Random) -> dict[bytes, tuple[int, int, bytes, dict[int, int]]]:
    world: dict[bytes, tuple[int, int, bytes, dict[int, int]]] = {}
    for address in CONTRACTS:
        storage = {slot: chance.choice([1, 3, 9]) for slot in range(4) if chance.random() < 0.5}
        world[address] = (1, chance.choice([0, 5, 7]), ProgramMaker(chance).make(), storage)
    for wallet in TEST_ACCOUNTS[:3]:
        world[wallet.address] = (0, 10**20, b"", {})
    return world


def random_transactions(chance: random.Random) -> list[bytes]:
    raws = []
    for nonce in range(chance.choice([1, 1, 2])):
        kind = chance.choice([0, 1, 2, 2, 4])
        data = chance.randbytes(chance.choice([0, 0, 4, 36, 68, 70]))
        to: bytes | None = chance.choice(CONTRACTS)
        if kind != 4 and chance.random() < 0.12:
            to, data = None, ProgramMaker(chance).make()
        fields: dict[str, Any] = {"authorization_list": (), "access_list": ()}
        if kind == 4:
            signers = [TEST_ACCOUNTS[1], TEST_ACCOUNTS[2], TEST_ACCOUNTS[0]]
            fields["authorization_list"] = [
                sign_authorization(
                    chance.choice(signers).private_key,
                    chance.choice([0, 901]),
                    chance.choice([*CONTRACTS, bytes(20), bytes(19) + b"\4"]),
                    chance.choice([0, 0, 1]),
                )
                for _ in range(chance.randrange(1, 4))
            ]
            to = chance.choice([*CONTRACTS, TEST_ACCOUNTS[1].address, TEST_ACCOUNTS[2].address])
        if kind and chance.random() < 0.4:
            fields["access_list"] = ((chance.choice(CONTRACTS), (0, 1)), (CONTRACTS[0], (2,)))
        raws.append(
            sign_transaction(
                TEST_ACCOUNTS[0].private_key,
                chain_id=901,
                nonce=nonce,
                to=to,
                value=chance.choice([0, 0, 1]),
                data=data,
                gas_limit=chance.choice([60_000, 130_000, 200_000, 500_000, 1_000_000]) + 40 * len(data),
                max_fee_per_gas=10**7,
                max_priority_fee_per_gas=chance.choice([0, 5]),
                kind=kind,
                **fields,
            )
        )
    return raws


Outcome = tuple[list[bytes | str], bytes]


def run_ours(world: dict[bytes, Any], raws: list[bytes], compile_budget_ops: int) -> tuple[Outcome, Header, int]:
    accounts = {}
    for address, (nonce, balance, code, storage) in world.items():
        slots = update(None, {hashed_slot(slot): value for slot, value in storage.items()})
        accounts[hashed_address(address)] = Account(nonce, balance, Code.of(code) if code else NO_CODE, slots)
    state = WorldState().with_accounts(accounts)
    block = OpenBlock.start(SPEC, PARENT, state, ATTRIBUTES)
    block.state.compile_budget_ops = compile_budget_ops
    found: list[bytes | str] = []
    for raw in raws:
        try:
            found.append(block.append(raw).consensus_rlp())
        except InvalidTransaction:
            found.append("invalid")
    sealed = block.seal()
    return (found, sealed.header.state_root), sealed.header, block.base_fee


def run_eels(world: dict[bytes, Any], raws: list[bytes], header: Header) -> Outcome:
    state = eels_state.State()
    for address, (nonce, balance, code, storage) in world.items():
        eels_state.set_account(state, Address(address), EelsAccount(Uint(nonce), U256(balance), Bytes(code)))
        for slot, value in storage.items():
            eels_state.set_storage(state, Address(address), Bytes32(slot.to_bytes(32, "big")), U256(value))
    environment = BlockEnvironment(
        chain_id=U64(901),
        state=state,
        block_gas_limit=Uint(header.gas_limit),
        block_hashes=[Bytes32(PARENT.hash)],
        coinbase=Address(COINBASE),
        number=Uint(1),
        base_fee_per_gas=Uint(header.base_fee_per_gas),
        time=U256(header.timestamp),
        prev_randao=Bytes32(header.prev_randao),
        excess_blob_gas=U64(0),
        parent_beacon_block_root=Bytes32(bytes(32)),
    )
    output = BlockOutput()
    found: list[bytes | str] = []
    for index, raw in enumerate(raws):
        before = output.block_gas_used
        tx = eels_rlp.decode_to(LegacyTransaction, raw) if raw[0] >= 0xC0 else decode_transaction(Bytes(raw))
        try:
            process_transaction(environment, output, tx, Uint(index))
        except EthereumException:
            found.append("invalid")
            continue
        receipt: Any = trie_get(output.receipts_trie, eels_rlp.encode(Uint(index)))
        found.append(bytes(receipt) if isinstance(receipt, bytes) else bytes(eels_rlp.encode(receipt)))
        # OP credits the base fee to a vault instead of burning it.
        fee = U256((output.block_gas_used - before) * Uint(header.base_fee_per_gas))
        vault = Address(BASE_FEE_VAULT)
        eels_state.set_account_balance(state, vault, eels_state.get_account(state, vault).balance + fee)
    return found, bytes(eels_state.state_root(state))


def check(seed: int) -> None:
    chance = random.Random(seed)
    world, raws = random_world(chance), random_transactions(chance)
    compiled, header, _ = run_ours(world, raws, 10**9)
    interpreted, _, _ = run_ours(world, raws, 0)
    assert compiled == interpreted, seed
    assert compiled == run_eels(world, raws, header), seed


class TestDifferential:
    @pytest.fixture(autouse=True)
    def _settings(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(program, "HOT_VISITS", 1)
        monkeypatch.setattr(program, "HOT_VISITS_BEYOND_BUDGET", 10**9)

    def test_fixed_seeds(self) -> None:
        for seed in range(50):
            check(seed)

    @settings(max_examples=20, deadline=None)
    @given(seed=st.integers(1_000, 2**32))
    def test_random_seeds(self, seed: int) -> None:
        check(seed)

    @pytest.mark.slow
    @pytest.mark.timeout(3600)
    def test_long(self) -> None:
        for seed in range(10_000, 14_000):
            check(seed)

    @pytest.mark.parametrize("limit", [1, 3, 7])
    def test_short_traces(self, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
        monkeypatch.setattr(program, "TRACE_LIMIT_OPS", limit)
        for seed in range(2_000, 2_012):
            program.cache.programs.clear()
            check(seed)
