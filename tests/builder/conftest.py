"""A real chain at its genesis, a real pool, and signed transactions of the funded accounts."""

from collections.abc import Callable
from types import SimpleNamespace

import pytest

from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.chain import Chain, ChainBlock
from flashblocks.execution.follow import PayloadFollower
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.open_block import OpenBlock
from flashblocks.execution.pool import TransactionPool
from flashblocks.execution.pool_rules import PoolHead
from flashblocks.execution.signing import sign_transaction
from flashblocks.execution.transaction import Transaction, decode_transaction, encode_deposit
from flashblocks.wire.engine import PayloadAttributes
from flashblocks.wire.payload_id import payload_id

REVERTER = bytes.fromhex("5f5ffd")  # runtime: revert(0, 0)
SPINNER = bytes.fromhex("5b5f56")  # runtime: for ever


@pytest.fixture(scope="session")
def genesis() -> SimpleNamespace:
    document = default_genesis()
    document["alloc"]["00000000000000000000000000000000000000aa"] = {"balance": "0x0", "code": "0x" + REVERTER.hex()}
    document["alloc"]["00000000000000000000000000000000000000bb"] = {"balance": "0x0", "code": "0x" + SPINNER.hex()}
    spec, block, state = load_genesis(document)
    return SimpleNamespace(spec=spec, header=block.header, state=state)


@pytest.fixture
def deposit() -> bytes:
    return encode_deposit(
        source_hash=b"\1" * 32,
        sender=bytes.fromhex("deaddeaddeaddeaddeaddeaddeaddeaddead0001"),
        to=bytes.fromhex("4200000000000000000000000000000000000015"),
        mint=0,
        value=0,
        gas_limit=1_000_000,
        data=b"",
    )


@pytest.fixture
def attributes(genesis: SimpleNamespace, deposit: bytes) -> PayloadAttributes:
    return PayloadAttributes(
        timestamp=genesis.header.timestamp + 2,
        prev_randao=b"\7" * 32,
        fee_recipient=bytes.fromhex("4200000000000000000000000000000000000011"),
        parent_beacon_block_root=bytes(32),
        transactions=(deposit,),
        gas_limit=genesis.header.gas_limit,
        eip1559_params=(250).to_bytes(4, "big") + (6).to_bytes(4, "big"),
    )


@pytest.fixture
def identifier(genesis: SimpleNamespace, attributes: PayloadAttributes) -> bytes:
    return payload_id(genesis.header.hash, attributes)


@pytest.fixture
def opened(genesis: SimpleNamespace, attributes: PayloadAttributes) -> OpenBlock:
    return OpenBlock.start(genesis.spec, genesis.header, genesis.state, attributes)


@pytest.fixture
def judge(genesis: SimpleNamespace) -> PayloadFollower:
    """The fallback execution client's own judge, on the same genesis."""
    return PayloadFollower(Chain(genesis.spec, ChainBlock(genesis.header, (), (), genesis.state)))


@pytest.fixture
def pool(genesis: SimpleNamespace) -> TransactionPool:
    return TransactionPool(genesis.spec, PoolHead.of(genesis.spec, genesis.header, genesis.state))


@pytest.fixture
def sign(genesis: SimpleNamespace) -> Callable[..., Transaction]:
    def transfer(
        account: int, nonce: int, *, tip: int = 10**6, to: bytes = b"\x99" * 20, gas: int = 21_000
    ) -> Transaction:
        raw = sign_transaction(
            TEST_ACCOUNTS[account].private_key,
            chain_id=genesis.spec.chain_id,
            nonce=nonce,
            to=to,
            value=0 if gas > 21_000 else 1,
            gas_limit=gas,
            max_fee_per_gas=10**10,
            max_priority_fee_per_gas=tip,
        )
        return decode_transaction(raw)

    return transfer
