"""A block under construction: append transactions, seal the valid block of what is there so far, go on appending."""

from collections.abc import Callable
from dataclasses import dataclass, replace

import msgspec

from flashblocks.execution import trie
from flashblocks.execution.block_state import COMPILE_BUDGET_OPS, BlockHashes, BlockState, Environment
from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.errors import InvalidAttributes, InvalidTransaction
from flashblocks.execution.fees import (
    MESSAGE_PASSER,
    L1Parameters,
    calldata_gas,
    da_footprint,
    encode_extra_data,
    l1_gas_used,
    next_base_fee,
    read_l1_parameters,
)
from flashblocks.execution.header import EMPTY_REQUESTS_HASH, ZERO_BLOOM, Block, Header
from flashblocks.execution.receipt import DEPOSIT_RECEIPT_VERSION, Receipt, bloom_bits
from flashblocks.execution.state import WorldState
from flashblocks.execution.system_calls import begin_block
from flashblocks.execution.transact import Outcome, apply_transaction, precompile_addresses
from flashblocks.execution.transaction import Transaction, decode_transaction
from flashblocks.wire.engine import PayloadAttributes

GAS_LIMIT_END = 1 << 63

NO_L1_PARAMETERS = L1Parameters(0, 0, 0, 0, 0, 0, 0)


class Sealed(msgspec.Struct, frozen=True):
    """The valid block of a prefix, with the state after it. `transactions` are the raw bytes."""

    header: Header
    state: WorldState
    receipts: tuple[Receipt, ...]
    transactions: tuple[bytes, ...]

    @property
    def block(self) -> Block:
        """Header and transactions."""
        return Block(self.header, self.transactions)


@dataclass(frozen=True, slots=True)
class Mark:
    """A place in an open block to which it can be rolled back. Good for that block only, and only backwards."""

    _undo_length: int
    _transactions: int
    _progress: "_Progress"
    _tries: tuple[trie.Node | None, trie.Node | None]
    _in_tries: int


@dataclass(slots=True)
class _Progress:
    """The sums that grow with every transaction."""

    gas_used: int = 0
    bloom: int = 0
    da_size: int = 0
    da_footprint: int = 0
    l1: L1Parameters | None = None  # read once per block, at the first transaction that is not a deposit


class OpenBlock:
    """A block being built on `parent`. Sub-blocks are appends with a seal between them; the last seal is the block.

    Each seal hashes only what changed since the one before. Not thread-safe; two forks of one block are independent.
    """

    def __init__(self) -> None:
        raise TypeError("use OpenBlock.start")

    spec: ChainSpec
    attributes: PayloadAttributes
    parent_hash: bytes
    base_fee: int
    number: int

    @staticmethod
    def start(
        spec: ChainSpec,
        parent: Header,
        state: WorldState,
        attributes: PayloadAttributes,
        *,
        block_hashes: BlockHashes | None = None,
    ) -> "OpenBlock":
        """Open the block after `parent`, whose state is `state`, and do the protocol's own writes (EIP-4788, 2935).

        The transactions in `attributes` are not executed: append them first. `block_hashes` gives the hashes of older
        ancestors to BLOCKHASH (see `BlockHashes`). Raises InvalidAttributes.
        """
        if attributes.timestamp <= parent.timestamp:
            raise InvalidAttributes(f"timestamp {attributes.timestamp} is not after the parent's {parent.timestamp}")
        if not 0 < attributes.gas_limit < GAS_LIMIT_END:
            raise InvalidAttributes(f"gas limit {attributes.gas_limit}")
        header = Header(
            parent_hash=parent.hash,
            fee_recipient=attributes.fee_recipient,
            state_root=parent.state_root,
            number=parent.number + 1,
            gas_limit=attributes.gas_limit,
            timestamp=attributes.timestamp,
            extra_data=encode_extra_data(
                spec, attributes.timestamp, attributes.eip1559_params, attributes.min_base_fee
            ),
            prev_randao=attributes.prev_randao,
            base_fee_per_gas=next_base_fee(spec, parent),
            parent_beacon_root=attributes.parent_beacon_block_root,
            requests_hash=EMPTY_REQUESTS_HASH if spec.is_isthmus(attributes.timestamp) else None,
        )
        block = OpenBlock.on_header(spec, header, state, block_hashes=block_hashes)
        block.attributes = attributes
        return block

    @staticmethod
    def on_header(
        spec: ChainSpec, header: Header, state: WorldState, *, block_hashes: BlockHashes | None = None
    ) -> "OpenBlock":
        """Open the block with the environment of `header` (its roots and sums are ignored) on the parent's `state`."""
        block = OpenBlock.__new__(OpenBlock)
        block.spec = spec
        block._header = header
        block.parent_hash, block.base_fee, block.number = header.parent_hash, header.base_fee_per_gas, header.number
        block._state = BlockState(state, Environment.of(spec, header, block_hashes))
        block._warm = precompile_addresses(block._state.environment.rules) | {header.fee_recipient}
        block._transactions = []
        block._receipts = []
        block._progress = _Progress()
        block._tries = (None, None)
        block._in_tries = 0
        begin_block(block._state, header.parent_hash, header.parent_beacon_root)
        return block

    _header: Header
    _state: BlockState
    _warm: frozenset[bytes]
    _transactions: list[bytes]
    _receipts: list[Receipt]
    _progress: _Progress
    _tries: tuple[trie.Node | None, trie.Node | None]  # transactions and receipts
    _in_tries: int  # how many of them the tries hold

    @property
    def gas_used(self) -> int:
        """Gas of all appended transactions."""
        return self._progress.gas_used

    @property
    def gas_limit(self) -> int:
        """The block's gas limit."""
        return self._header.gas_limit

    @property
    def timestamp(self) -> int:
        """The block's time in seconds since 1970."""
        return self._header.timestamp

    @property
    def transactions(self) -> tuple[bytes, ...]:
        """The raw transactions so far."""
        return tuple(self._transactions)

    @property
    def receipts(self) -> tuple[Receipt, ...]:
        """Their receipts."""
        return tuple(self._receipts)

    @property
    def transaction_count(self) -> int:
        """How many transactions there are so far."""
        return len(self._transactions)

    @property
    def da_size(self) -> int:
        """Estimated size of the paid transactions in an L1 batch, in bytes."""
        return self._progress.da_size

    @property
    def da_footprint(self) -> int:
        """Gas of the block's DA budget used so far (Jovian; 0 before)."""
        return self._progress.da_footprint

    @property
    def state(self) -> BlockState:
        """The journal of the block so far, for reading."""
        return self._state

    def append(
        self,
        transaction: Transaction | bytes,
        *,
        deadline: float | None = None,
        clock: Callable[[], float] | None = None,
    ) -> Receipt:
        """Execute one transaction at the end of the block.

        Raises InvalidTransaction, leaving the block exactly as it was. With `deadline` (in the time of `clock`), a
        transaction that still runs then is stopped: OutOfTime is raised, the block is as it was, and the transaction
        may be tried again.
        """
        tx = transaction if isinstance(transaction, Transaction) else decode_transaction(transaction)
        state = self._state
        progress = self._progress
        l1 = progress.l1
        if l1 is None and not tx.is_deposit:
            l1 = read_l1_parameters(state, state.environment.rules)
        footprint = 0
        if not tx.is_deposit:
            assert l1 is not None
            footprint = da_footprint(tx.fee_size, l1) if l1.da_footprint_gas_scalar else 0
            if footprint and progress.da_footprint + footprint > self._header.gas_limit:
                raise InvalidTransaction("DA footprint limit reached")
        checkpoint = state.snapshot()
        state.deadline, state.clock = deadline, clock
        try:
            outcome = apply_transaction(
                state, self._warm, tx, l1 or NO_L1_PARAMETERS, self._header.gas_limit - progress.gas_used
            )
        except BaseException:
            state.revert(checkpoint)
            raise
        state.end_transaction()
        return self._record(tx, outcome, l1, footprint)

    def _record(self, tx: Transaction, outcome: Outcome, l1: L1Parameters | None, footprint: int) -> Receipt:
        progress = self._progress
        progress.gas_used += outcome.gas_used
        bloom = ZERO_BLOOM
        if outcome.logs:
            bits = bloom_bits(outcome.logs)
            progress.bloom |= bits
            bloom = bits.to_bytes(256, "big")
        receipt = make_receipt(
            tx,
            outcome,
            cumulative_gas_used=progress.gas_used,
            bloom=bloom,
            l1=l1,
            footprint=footprint,
            environment=self._state.environment,
        )
        if not tx.is_deposit:
            progress.l1 = l1
            progress.da_size += l1_gas_used(tx.fee_size) // 16
            progress.da_footprint += footprint
        self._transactions.append(tx.raw)
        self._receipts.append(receipt)
        return receipt

    def seal(self) -> Sealed:
        """The valid block of everything appended so far, and the state after it. Appending may go on afterwards."""
        self._extend_tries()
        self._state.compile_budget_ops = COMPILE_BUDGET_OPS
        state = self._state.world()
        progress = self._progress
        rules = self._state.environment.rules
        header = msgspec.structs.replace(
            self._header,
            state_root=state.root,
            transactions_root=trie.root_hash(self._tries[0]),
            receipts_root=trie.root_hash(self._tries[1]),
            logs_bloom=progress.bloom.to_bytes(256, "big"),
            gas_used=progress.gas_used,
            withdrawals_root=state.storage_root(MESSAGE_PASSER) if rules.isthmus else trie.EMPTY_ROOT,
            blob_gas_used=progress.da_footprint,
        )
        return Sealed(header, state, tuple(self._receipts), tuple(self._transactions))

    def _extend_tries(self) -> None:
        done = self._in_tries
        if done == len(self._transactions):
            return
        transactions, receipts = self._tries
        new_receipts = [receipt.consensus_rlp() for receipt in self._receipts[done:]]
        self._tries = (
            trie.update(transactions, trie.ordered_changes(self._transactions[done:], done)),
            trie.update(receipts, trie.ordered_changes(new_receipts, done)),
        )
        self._in_tries = len(self._transactions)

    def mark(self) -> Mark:
        """Remember this place; costs nothing."""
        progress = replace(self._progress)
        return Mark(self._state.snapshot(), len(self._transactions), progress, self._tries, self._in_tries)

    def rollback(self, mark: Mark) -> None:
        """Forget everything appended after `mark`; marks made after it are void."""
        if mark._transactions > len(self._transactions):
            raise ValueError("the mark lies ahead of the block")
        self._state.revert(mark._undo_length)
        self._progress = replace(mark._progress)
        if self._in_tries > mark._transactions:
            # The tries hold more, and an index trie has no cheap truncation: those of then are taken up again.
            self._tries, self._in_tries = mark._tries, mark._in_tries
        del self._transactions[mark._transactions :]
        del self._receipts[mark._transactions :]

    def new_account_balances(self) -> dict[bytes, int]:
        """Balance in wei of every account written since the block began, as it is now."""
        state = self._state
        return {address: state.get_balance(address) for address in sorted(state.touched_addresses())}

    def fork(self) -> "OpenBlock":
        """An independent continuation of the same prefix. Costs a seal of what is new since the last one."""
        self._extend_tries()
        other = OpenBlock.__new__(OpenBlock)
        other.__dict__.update(self.__dict__)
        other._state = self._state.fork()
        other._transactions = list(self._transactions)
        other._receipts = list(self._receipts)
        other._progress = replace(self._progress)
        return other


def make_receipt(
    tx: Transaction,
    outcome: Outcome,
    *,
    cumulative_gas_used: int,
    bloom: bytes,
    l1: L1Parameters | None,
    footprint: int,
    environment: Environment,
) -> Receipt:
    """The receipt with the fields of the block's fork (specs, exec-engine.md; op-geth core/types/receipt.go)."""
    if tx.is_deposit or l1 is None:
        return Receipt(
            type=tx.type,
            status=int(outcome.success),
            cumulative_gas_used=cumulative_gas_used,
            gas_used=outcome.gas_used,
            logs=outcome.logs,
            bloom=bloom,
            tx_hash=tx.hash,
            contract_address=outcome.contract_address,
            deposit_nonce=outcome.deposit_nonce,
            deposit_receipt_version=DEPOSIT_RECEIPT_VERSION,
        )
    isthmus, jovian = environment.rules.isthmus, environment.rules.jovian
    return Receipt(
        type=tx.type,
        status=int(outcome.success),
        cumulative_gas_used=cumulative_gas_used,
        gas_used=outcome.gas_used,
        logs=outcome.logs,
        bloom=bloom,
        tx_hash=tx.hash,
        contract_address=outcome.contract_address,
        effective_gas_price=outcome.effective_gas_price,
        l1_gas_price=l1.base_fee,
        l1_gas_used=l1_gas_used(tx.fee_size) if environment.rules.fjord else calldata_gas(tx.raw),
        l1_fee=outcome.l1_fee,
        l1_base_fee_scalar=l1.base_fee_scalar,
        l1_blob_base_fee=l1.blob_base_fee,
        l1_blob_base_fee_scalar=l1.blob_base_fee_scalar,
        operator_fee_scalar=l1.operator_fee_scalar if isthmus else None,
        operator_fee_constant=l1.operator_fee_constant if isthmus else None,
        da_footprint_gas_scalar=l1.da_footprint_gas_scalar if jovian else None,
        blob_gas_used=footprint if jovian else None,
    )
