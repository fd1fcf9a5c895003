"""The state of an open block together with the block's own environment: all that an opcode can ask for."""

from collections.abc import Callable, Mapping

import msgspec

from flashblocks.execution.chain_spec import ChainSpec, Rules
from flashblocks.execution.header import Header
from flashblocks.execution.journal import Journal
from flashblocks.execution.state import WorldState

BLOCK_HASH_WINDOW_BLOCKS = 256
BLOB_BASE_FEE = 1  # wei; OP blocks carry no blobs, so the excess blob gas is always 0 (EIP-4844)

# Opcodes that may be compiled between two seals; at about 6 µs each this is some 120 ms. Code beyond it is interpreted,
# and a deadline is checked after every trace.
COMPILE_BUDGET_OPS = 20_000

BlockHashes = Callable[[int], bytes | None] | Mapping[int, bytes]
"""The hashes that BLOCKHASH can see: number → hash, as a mapping or a function (None: unknown, BLOCKHASH gives zero).

The parent is always known from its header. Whoever executes blocks passes the other 255 ancestors.
"""


class Environment(msgspec.Struct, frozen=True):
    """What a contract can learn about the block it runs in."""

    chain_id: int
    number: int
    timestamp: int
    fee_recipient: bytes
    gas_limit: int
    base_fee: int  # wei
    prev_randao: bytes
    rules: Rules
    block_hash: Callable[[int], bytes | None]

    @staticmethod
    def of(spec: ChainSpec, header: Header, block_hashes: BlockHashes | None) -> "Environment":
        """The environment of the block that `header` describes."""
        return Environment(
            spec.chain_id,
            header.number,
            header.timestamp,
            header.fee_recipient,
            header.gas_limit,
            header.base_fee_per_gas,
            header.prev_randao,
            spec.rules(header.timestamp),
            ancestor_lookup(header.number, header.parent_hash, block_hashes),
        )


def ancestor_lookup(number: int, parent_hash: bytes, hashes: BlockHashes | None) -> Callable[[int], bytes | None]:
    """The function behind BLOCKHASH in block `number`: only the 256 blocks before it, the parent always."""
    known = (lambda wanted: None) if hashes is None else hashes if callable(hashes) else hashes.get

    def block_hash(wanted: int) -> bytes | None:
        if not number - BLOCK_HASH_WINDOW_BLOCKS <= wanted < number or wanted < 0:
            return None
        return parent_hash if wanted == number - 1 else known(wanted)

    return block_hash


class BlockState(Journal):
    """A journal with the names under which py-evm's opcodes read the block's environment."""

    def __init__(self, base: WorldState, environment: Environment) -> None:
        super().__init__(base)
        self.environment = environment
        self.execution_context = environment  # py-evm reads `execution_context.chain_id`
        self.coinbase = environment.fee_recipient
        self.timestamp = environment.timestamp
        self.block_number = environment.number
        self.mix_hash = environment.prev_randao
        self.gas_limit = environment.gas_limit
        self.base_fee = environment.base_fee
        self.blob_base_fee = BLOB_BASE_FEE
        self.deadline: float | None = None
        self.clock: Callable[[], float] | None = None
        self.compile_budget_ops = COMPILE_BUDGET_OPS
        self.shows_transfers = False  # as logs of an address that nobody has (eth_simulateV1)

    def get_ancestor_hash(self, number: int) -> bytes:
        """BLOCKHASH: empty for what is out of reach (py-evm pushes it as zero)."""
        return self.environment.block_hash(number) or b""

    def fork(self) -> "BlockState":
        """An independent continuation of the same prefix."""
        other = BlockState(self.world(), self.environment)
        other._touched_before = frozenset(self.touched_addresses())
        return other
