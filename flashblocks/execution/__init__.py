"""The rules of an OP-Stack chain: state, transactions, blocks and their receipts, exactly and without IO."""

from flashblocks.execution.access_list import CreatedAccessList, create_access_list
from flashblocks.execution.block_state import BlockHashes
from flashblocks.execution.calls import AccountOverride, CallResult, call, estimate_gas
from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.errors import (
    CallReverted,
    ExecutionError,
    InvalidAttributes,
    InvalidBlock,
    InvalidTransaction,
    OutOfTime,
)
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.header import Block, Header
from flashblocks.execution.import_block import execute_block
from flashblocks.execution.open_block import Mark, OpenBlock, Sealed
from flashblocks.execution.proofs import account_proof
from flashblocks.execution.receipt import Log, Receipt
from flashblocks.execution.state import StateDiff, WorldState
from flashblocks.execution.transaction import Transaction, decode_transaction, encode_deposit, recover_sender
from flashblocks.wire.engine import PayloadAttributes

__all__ = [
    "AccountOverride",
    "Block",
    "BlockHashes",
    "CallResult",
    "CallReverted",
    "ChainSpec",
    "CreatedAccessList",
    "ExecutionError",
    "Header",
    "InvalidAttributes",
    "InvalidBlock",
    "InvalidTransaction",
    "Log",
    "Mark",
    "OpenBlock",
    "OutOfTime",
    "PayloadAttributes",
    "Receipt",
    "Sealed",
    "StateDiff",
    "Transaction",
    "WorldState",
    "account_proof",
    "call",
    "create_access_list",
    "decode_transaction",
    "default_genesis",
    "encode_deposit",
    "estimate_gas",
    "execute_block",
    "load_genesis",
    "recover_sender",
]
