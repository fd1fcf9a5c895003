"""A little sequencer for tests: it opens, fills and seals blocks and flashblocks on any parent, deterministically."""

from collections.abc import Sequence

from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.chain import Chain, ChainBlock
from flashblocks.execution.follow import flashblock_from
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.header import Block, Header
from flashblocks.execution.open_block import OpenBlock, Sealed
from flashblocks.execution.signing import sign_transaction
from flashblocks.execution.state import WorldState
from flashblocks.execution.transaction import encode_deposit
from flashblocks.wire.engine import PayloadAttributes
from flashblocks.wire.flashblock import Flashblock
from flashblocks.wire.payload_id import payload_id

DEPOSITOR = bytes.fromhex("deaddeaddeaddeaddeaddeaddeaddeaddead0001")
L1_BLOCK = bytes.fromhex("4200000000000000000000000000000000000015")
EIP1559_PARAMS = (250).to_bytes(4, "big") + (6).to_bytes(4, "big")


class Forge:
    """Makes blocks. Nothing in it knows the code under test but the block rules themselves."""

    def __init__(self) -> None:
        self.genesis = default_genesis()
        self.spec, self.block, self.state = load_genesis(self.genesis)

    def chain(self) -> Chain:
        """A chain that holds the genesis block."""
        return Chain(self.spec, ChainBlock(self.block.header, (), (), self.state))

    def deposit(self, number: int) -> bytes:
        """A deposit that differs from block to block, as the L1-attributes deposit does."""
        return encode_deposit(
            source_hash=number.to_bytes(32, "big"),
            sender=DEPOSITOR,
            to=L1_BLOCK,
            mint=0,
            value=0,
            gas_limit=1_000_000,
            data=b"",
        )

    def attributes(self, parent: Header, *, seconds: int = 2, randao: int = 7) -> PayloadAttributes:
        """What the op-node asks for after `parent`."""
        return self.attributes_at(parent.number + 1, parent.timestamp + seconds, randao=randao)

    def attributes_at(
        self, number: int, timestamp: int, *, randao: int = 7, no_tx_pool: bool = False
    ) -> PayloadAttributes:
        """What the op-node asks for at this height and time."""
        return PayloadAttributes(
            timestamp=timestamp,
            prev_randao=randao.to_bytes(32, "big"),
            fee_recipient=bytes.fromhex("4200000000000000000000000000000000000011"),
            parent_beacon_block_root=bytes(32),
            transactions=(self.deposit(number),),
            no_tx_pool=no_tx_pool,
            gas_limit=self.block.header.gas_limit,
            eip1559_params=EIP1559_PARAMS,
        )

    def transfer(self, account: int, nonce: int, *, to: int = 9, value: int = 1, tip: int = 10**6) -> bytes:
        """A signed transfer between two of the funded accounts."""
        return sign_transaction(
            TEST_ACCOUNTS[account].private_key,
            chain_id=self.spec.chain_id,
            nonce=nonce,
            to=TEST_ACCOUNTS[to].address,
            value=value,
            max_fee_per_gas=10**10,
            max_priority_fee_per_gas=tip,
        )

    def seal(
        self,
        parent: Header,
        state: WorldState,
        transactions: Sequence[bytes] = (),
        *,
        seconds: int = 2,
        randao: int = 7,
    ) -> Sealed:
        """The block after `parent` with its deposit and these transactions."""
        attributes = self.attributes(parent, seconds=seconds, randao=randao)
        working = OpenBlock.start(self.spec, parent, state, attributes)
        for raw in (*attributes.transactions, *transactions):
            working.append(raw)
        return working.seal()

    def blocks(self, count: int, *, randao: int = 7) -> list[Block]:
        """A chain of blocks after genesis, one transfer in each."""
        header, state, made = self.block.header, self.state, []
        for number in range(count):
            sealed = self.seal(header, state, [self.transfer(0, number)], randao=randao)
            made.append(sealed.block)
            header, state = sealed.header, sealed.state
        return made

    def flashblocks(
        self, parent: Header, state: WorldState, pieces: Sequence[Sequence[bytes]], *, randao: int = 7
    ) -> list[Flashblock]:
        """Index 0 with the deposit, then one flashblock per piece."""
        attributes = self.attributes(parent, randao=randao)
        name = payload_id(parent.hash, attributes)
        working = OpenBlock.start(self.spec, parent, state, attributes)
        made = []
        for index, piece in enumerate((attributes.transactions, *pieces)):
            before = working.transaction_count
            for raw in piece:
                working.append(raw)
            made.append(flashblock_from(name, index, working.seal(), working.new_account_balances(), before))
        return made
