"""A small chain to execute on: the default genesis, the ten funded accounts, signed transactions, attributes."""

import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import pytest

from flashblocks.execution import (
    ChainSpec,
    Header,
    OpenBlock,
    PayloadAttributes,
    Sealed,
    WorldState,
    default_genesis,
    load_genesis,
)
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.fees import SEQUENCER_FEE_VAULT
from flashblocks.execution.keccak import hashed_address
from flashblocks.execution.signing import sign_transaction
from flashblocks.execution.state import Account
from flashblocks.sequencing.deposits import L1Info, UserDeposit, encode_l1_info, encode_user_deposit

GENESIS_TIME_S = 1_750_000_000


@dataclass
class Chain:
    """A head to build on. `nonces` counts what `send` has signed."""

    spec: ChainSpec
    head: Header
    state: WorldState
    nonces: dict[int, int] = field(default_factory=dict)
    l1: dict[str, int] = field(default_factory=dict)

    @staticmethod
    def new(accounts: dict[bytes, Account] | None = None, **genesis: Any) -> "Chain":
        spec, block, state = load_genesis(default_genesis(timestamp=GENESIS_TIME_S, **genesis))
        header = block.header
        if accounts:
            state = state.with_accounts({hashed_address(a): account for a, account in accounts.items()})
            header = msgspec.structs.replace(header, state_root=state.root)
        return Chain(spec, header, state)

    def attributes(self, transactions: Iterable[bytes] = (), **changes: Any) -> PayloadAttributes:
        timestamp = self.head.timestamp + 2
        fields: dict[str, Any] = {
            "timestamp": timestamp,
            "prev_randao": b"\x0a" * 32,
            "fee_recipient": SEQUENCER_FEE_VAULT,
            "parent_beacon_block_root": b"\x0b" * 32,
            "transactions": tuple(transactions),
            "gas_limit": 140_000_000,
            "min_base_fee": 0 if self.spec.is_jovian(timestamp) else None,
        }
        return PayloadAttributes(**{**fields, **changes})

    def l1_deposit(self) -> bytes:
        info: dict[str, Any] = {
            "number": 7,
            "timestamp": self.head.timestamp,
            "base_fee": 10**9,
            "blob_base_fee": 3,
            "hash": b"\x0c" * 32,
            "sequence_number": self.head.number,
            "batcher_hash": bytes(32),
            "base_fee_scalar": 5_227,
            "blob_base_fee_scalar": 1_014_213,
            "operator_fee_scalar": 2_000_000,
            "operator_fee_constant": 77,
            "da_footprint_gas_scalar": 400,
            **self.l1,
        }
        if not self.spec.is_jovian(self.head.timestamp + 2):
            info["da_footprint_gas_scalar"] = None
        return encode_l1_info(L1Info(**info))

    def deposit(self, sender: bytes, to: bytes | None, index: int = 0, **fields: Any) -> bytes:
        return encode_user_deposit(UserDeposit(sender=sender, to=to, **fields), b"\x0c" * 32, index)

    def open(self, **changes: Any) -> OpenBlock:
        """A block with its attributes deposit appended."""
        block = OpenBlock.start(self.spec, self.head, self.state, self.attributes(**changes))
        block.append(self.l1_deposit())
        return block

    def send(self, account: int, to: bytes | None, nonce: int | None = None, **fields: Any) -> bytes:
        if nonce is None:
            nonce = self.nonces.get(account, 0)
            self.nonces[account] = nonce + 1
        defaults = {"gas_limit": 21_000, "max_fee_per_gas": 10**9, "max_priority_fee_per_gas": 10**6}
        key = TEST_ACCOUNTS[account].private_key
        arguments: dict[str, Any] = {"chain_id": self.spec.chain_id, **defaults, **fields}
        return sign_transaction(key, nonce=nonce, to=to, **arguments)

    def advance(self, sealed: Sealed) -> None:
        self.head, self.state = sealed.header, sealed.state


@pytest.fixture
def new_chain() -> Any:
    return Chain.new


@pytest.fixture
def chain() -> Chain:
    return Chain.new()


@pytest.fixture
def wallets() -> list[bytes]:
    return [account.address for account in TEST_ACCOUNTS]


@pytest.fixture(scope="session")
def vectors() -> list[Path]:
    """Real blocks, where they are: beside the repository or under FLASHBLOCKS_VECTORS."""
    default = Path(__file__).parents[3].parent / "shared" / "vectors"
    directory = Path(os.environ.get("FLASHBLOCKS_VECTORS", default))
    found = sorted(directory.glob("**/*.json.gz"))
    if not found:
        pytest.skip(f"no block vectors under {directory}")
    return found
