"""Executing somebody else's block: every field of it is computed again and compared."""

from flashblocks.execution.block_state import BlockHashes
from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.errors import InvalidBlock, InvalidTransaction
from flashblocks.execution.fees import decode_extra_data, next_base_fee
from flashblocks.execution.header import EMPTY_REQUESTS_HASH, EMPTY_UNCLES_HASH, Block, Header
from flashblocks.execution.open_block import GAS_LIMIT_END, OpenBlock
from flashblocks.execution.receipt import Receipt
from flashblocks.execution.state import WorldState
from flashblocks.execution.transaction import Transaction

COMPUTED_FIELDS = (
    "gas_used",
    "logs_bloom",
    "transactions_root",
    "receipts_root",
    "state_root",
    "withdrawals_root",
    "blob_gas_used",
)


def check_header(spec: ChainSpec, parent: Header, header: Header) -> None:
    """Everything about a header that needs no execution; raises InvalidBlock."""
    if header.parent_hash != parent.hash:
        raise InvalidBlock(f"parent hash 0x{header.parent_hash.hex()} is not 0x{parent.hash.hex()}")
    if header.number != parent.number + 1:
        raise InvalidBlock(f"invalid block number {header.number} after {parent.number}")
    if header.timestamp <= parent.timestamp:
        raise InvalidBlock(f"timestamp {header.timestamp} is not after the parent's {parent.timestamp}")
    if not 0 < header.gas_limit < GAS_LIMIT_END:
        raise InvalidBlock(f"invalid gasLimit: {header.gas_limit}")
    if header.gas_used > header.gas_limit:
        raise InvalidBlock(f"invalid gasUsed: have {header.gas_used}, gasLimit {header.gas_limit}")
    if header.difficulty != 0 or header.nonce != bytes(8) or header.uncles_hash != EMPTY_UNCLES_HASH:
        raise InvalidBlock("difficulty, nonce and uncles must be empty")
    base_fee = next_base_fee(spec, parent)
    if header.base_fee_per_gas != base_fee:
        raise InvalidBlock(f"invalid baseFee: have {header.base_fee_per_gas}, want {base_fee}")
    decode_extra_data(spec, header)
    if header.excess_blob_gas != 0:
        raise InvalidBlock(f"invalid excessBlobGas: have {header.excess_blob_gas}, want 0")
    if header.blob_gas_used > (header.gas_limit if spec.is_jovian(header.timestamp) else 0):
        raise InvalidBlock(f"invalid blobGasUsed: {header.blob_gas_used}")
    requests = EMPTY_REQUESTS_HASH if spec.is_isthmus(header.timestamp) else None
    if header.requests_hash != requests:
        raise InvalidBlock("invalid requests hash")


def execute_block(
    spec: ChainSpec,
    parent: Header,
    parent_state: WorldState,
    block: Block,
    *,
    block_hashes: BlockHashes | None = None,
    decoded: tuple[Transaction, ...] | None = None,
) -> tuple[WorldState, tuple[Receipt, ...]]:
    """Check and execute `block` on `parent`; gives the state after it and its receipts, or raises InvalidBlock.

    `decoded` may hold the same transactions already decoded, with their senders recovered.
    """
    header = block.header
    check_header(spec, parent, header)
    working = OpenBlock.on_header(spec, header, parent_state, block_hashes=block_hashes)
    transactions: tuple[Transaction | bytes, ...] = block.transactions if decoded is None else decoded
    for index, transaction in enumerate(transactions):
        try:
            working.append(transaction)
        except InvalidTransaction as error:
            raise InvalidBlock(f"could not apply tx {index}: {error}") from error
    sealed = working.seal()
    for field in COMPUTED_FIELDS:
        have, want = getattr(header, field), getattr(sealed.header, field)
        if have != want:
            have, want = (f"0x{v.hex()}" if isinstance(v, bytes) else v for v in (have, want))
            raise InvalidBlock(f"invalid {field}: have {have}, want {want}")
    if sealed.header.hash != header.hash:
        raise InvalidBlock(f"blockhash mismatch, want 0x{sealed.header.hash.hex()}, got 0x{header.hash.hex()}")
    return sealed.state, sealed.receipts
