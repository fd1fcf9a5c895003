"""The reference engine: OP's rules on py-evm as it is, by subclassing only.

py-evm's own account database, tries, transaction types and executor do the work. Slow (7 Mgas/s on real blocks) and
independent of our journal, trie, frames and transaction layer, which is its use: `flashblocks replay --engine stock`,
differential tests, and the denominator of the benchmarks.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

import eth_hash.auto
import rlp
from eth._utils.address import generate_contract_address
from eth._utils.state import code_is_delegation_designation
from eth.abc import SignedTransactionAPI, TransactionDecoderAPI
from eth.consensus.context import ConsensusContext
from eth.constants import CREATE_CONTRACT_ADDRESS
from eth.db.atomic import AtomicDB
from eth.db.backends.memory import MemoryDB
from eth.db.chain import ChainDB
from eth.db.trie import make_trie_root_and_nodes
from eth.exceptions import OutOfGas, VMError
from eth.rlp.logs import Log
from eth.rlp.receipts import Receipt
from eth.rlp.sedes import address, hash32, uint256
from eth.rlp.transactions import SignedTransactionMethods
from eth.vm.chain_context import ChainContext
from eth.vm.forks.berlin.transactions import calculate_txn_intrinsic_gas_berlin
from eth.vm.forks.cancun import CancunVM
from eth.vm.forks.cancun.blocks import CancunBlockHeader
from eth.vm.forks.cancun.computation import CancunComputation
from eth.vm.forks.cancun.receipts import CancunReceiptBuilder, CancunTypedReceipt
from eth.vm.forks.cancun.state import CancunState, CancunTransactionExecutor
from eth.vm.forks.cancun.transactions import CancunTransactionBuilder, CancunTypedTransaction
from eth.vm.forks.prague import PragueVM
from eth.vm.forks.prague.blocks import PragueBlockHeader
from eth.vm.forks.prague.computation import PragueComputation
from eth.vm.forks.prague.receipts import PragueReceiptBuilder, PragueTypedReceipt
from eth.vm.forks.prague.state import PragueState, PragueTransactionExecutor
from eth.vm.forks.prague.transactions import PragueTransactionBuilder, PragueTypedTransaction
from eth.vm.forks.spurious_dragon._utils import collect_touched_accounts
from eth.vm.interrupt import EVMMissingData
from eth.vm.message import Message
from eth_utils import ValidationError
from rlp.sedes import CountableList, big_endian_int, binary, boolean
from trie.exceptions import MissingTrieNode

from flashblocks.execution import fees, precompiles
from flashblocks.execution.chain_spec import ALL_RULES, ChainSpec, Rules
from flashblocks.execution.errors import MissingState
from flashblocks.execution.fastlz import fastlz_size
from flashblocks.execution.fees import L1Parameters
from flashblocks.execution.header import DEPOSIT_TYPE, EMPTY_REQUESTS_HASH, Header
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.replay import Fixture
from flashblocks.execution.trie import EMPTY_ROOT
from flashblocks.wire.engine import PayloadAttributes

eth_hash.auto.keccak.hasher = keccak256  # the same hash function as ours, so that the ratio is of the engines

GAS_FLOOR_BASE = 21_000
GAS_FLOOR_PER_TOKEN = 10


class StockDeposit(rlp.Serializable, SignedTransactionMethods, SignedTransactionAPI):  # type: ignore[misc]
    """Transaction type 0x7e as a py-evm transaction."""

    _type_id = DEPOSIT_TYPE
    fields: ClassVar = [
        ("source_hash", hash32),
        ("from_", address),
        ("to", address),
        ("mint", big_endian_int),
        ("value", big_endian_int),
        ("gas", big_endian_int),
        ("is_system_tx", boolean),
        ("data", binary),
    ]
    nonce = gas_price = max_fee_per_gas = max_priority_fee_per_gas = y_parity = r = s = max_fee_per_blob_gas = 0
    chain_id = None
    access_list = blob_versioned_hashes = authorization_list = ()

    @property
    def sender(self) -> bytes:
        """Named in the transaction; nobody signed it."""
        return self.from_  # type: ignore[no-any-return]

    def get_sender(self) -> bytes:
        """See `sender`."""
        return self.from_  # type: ignore[no-any-return]

    def get_message_for_signing(self) -> bytes:
        """There is none."""
        raise ValidationError("deposits are not signed")

    def check_signature_validity(self) -> None:
        """Always valid."""

    def validate(self) -> None:
        """Nothing to check."""

    def get_intrinsic_gas(self) -> int:
        """As any other transaction's."""
        return calculate_txn_intrinsic_gas_berlin(self)  # type: ignore[no-any-return]

    def encode(self) -> bytes:
        """RLP without the type byte."""
        return rlp.encode(self)  # type: ignore[no-any-return]

    @property
    def hash(self) -> bytes:
        """The typed wrapper hashes."""
        raise NotImplementedError

    def make_receipt(self, status: bytes, gas_used: int, log_entries: Iterable[Any]) -> "StockDepositReceipt":
        """A receipt whose deposit nonce the VM fills in."""
        return StockDepositReceipt(status, gas_used, [Log(a, t, d) for a, t, d in log_entries])


class StockDepositReceipt(rlp.Serializable):  # type: ignore[misc]
    """Canyon's receipt of a deposit: two more fields."""

    fields: ClassVar = [
        ("state_root", binary),
        ("gas_used", big_endian_int),
        ("bloom", uint256),
        ("logs", CountableList(Log)),
        ("deposit_nonce", big_endian_int),
        ("deposit_receipt_version", big_endian_int),
    ]
    type_id = None
    bloom_filter = Receipt.bloom_filter

    def __init__(
        self,
        state_root: bytes,
        gas_used: int,
        logs: list[Log],
        bloom: int | None = None,
        deposit_nonce: int = 0,
        deposit_receipt_version: int = 1,
    ) -> None:
        if bloom is None:
            bloom = Receipt(state_root, gas_used, logs).bloom
        super().__init__(
            state_root=state_root,
            gas_used=gas_used,
            bloom=bloom,
            logs=logs,
            deposit_nonce=deposit_nonce,
            deposit_receipt_version=deposit_receipt_version,
        )

    def encode(self) -> bytes:
        """RLP without the type byte."""
        return rlp.encode(self)  # type: ignore[no-any-return]


class _DepositDecoder(TransactionDecoderAPI):  # type: ignore[misc]
    @classmethod
    def decode(cls, payload: bytes) -> StockDeposit:
        return rlp.decode(payload, sedes=StockDeposit)  # type: ignore[no-any-return]


def _floor(tx: Any, rules: Rules) -> int:
    if not rules.isthmus:
        return 0
    zeros = tx.data.count(0)
    floor: int = GAS_FLOOR_BASE + GAS_FLOOR_PER_TOKEN * (zeros + 4 * (len(tx.data) - zeros))
    return floor


class _StockExecutor:
    """OP's part of a transaction executor, mixed into py-evm's; `vm_state` is a `_StockState`."""

    vm_state: Any

    def __call__(self, tx: Any) -> Any:
        if tx.type_id != DEPOSIT_TYPE:
            return super().__call__(tx)  # type: ignore[misc]
        result = self.apply_deposit(tx)
        self.vm_state.clear_transient_storage()
        return result

    def validate_transaction(self, tx: Any) -> None:
        """What py-evm leaves out, the fees of OP, then py-evm's own checks."""
        state = self.vm_state
        if tx.chain_id is not None and tx.chain_id != state.execution_context.chain_id:
            raise ValidationError("wrong chain id")
        if tx.max_priority_fee_per_gas > tx.max_fee_per_gas:
            raise ValidationError("tip above the fee cap")
        if tx.gas < max(tx.intrinsic_gas, _floor(tx, state.rules)):
            raise ValidationError("gas below intrinsic gas or floor")
        code = state.get_code(tx.sender)
        if code and not code_is_delegation_designation(code):
            raise ValidationError("sender has code")
        l1 = state.l1_parameters()
        raw = tx.encode()
        fjord = state.rules.fjord
        tx.op_l1_fee = fees.l1_fee(fastlz_size(raw), l1) if fjord else fees.ecotone_l1_fee(raw, l1)
        tx.op_operator_limit = fees.operator_fee(tx.gas, l1, state.rules)
        need = tx.gas * tx.max_fee_per_gas + tx.value + tx.op_l1_fee + tx.op_operator_limit
        if state.get_balance(tx.sender) < need:
            raise ValidationError("insufficient funds")
        state.validate_transaction(tx)

    def build_evm_message(self, tx: Any) -> Any:
        """Charge the L1 fee and the most the operator fee can be."""
        self.vm_state.delta_balance(tx.sender, -(tx.op_l1_fee + tx.op_operator_limit))
        return super().build_evm_message(tx)  # type: ignore[misc]

    def finalize_computation(self, tx: Any, computation: Any) -> Any:
        """Refunds, floor, vaults, and the removal of destroyed and empty accounts."""
        state = self.vm_state
        rules = state.rules
        used = tx.gas - computation.get_gas_remaining()
        used -= min(computation.get_gas_refund(), used // 5)
        used = max(used, _floor(tx, rules))
        computation.op_gas_used, computation.data_floor_gas = used, 0
        touched = set(collect_touched_accounts(computation))
        if tx.type_id != DEPOSIT_TYPE:
            base_fee = state.execution_context.base_fee_per_gas
            operator = fees.operator_fee(used, state.l1_parameters(), rules)
            back = (tx.gas - used) * state.get_gas_price(tx) + tx.op_operator_limit - operator
            state.delta_balance(tx.sender, back)
            state.delta_balance(state.coinbase, used * state.get_tip(tx))
            state.delta_balance(fees.BASE_FEE_VAULT, used * base_fee)
            state.delta_balance(fees.L1_FEE_VAULT, tx.op_l1_fee)
            touched |= {state.coinbase, fees.BASE_FEE_VAULT, fees.L1_FEE_VAULT}
            if rules.isthmus:
                state.delta_balance(fees.OPERATOR_FEE_VAULT, operator)
                touched.add(fees.OPERATOR_FEE_VAULT)
        for account in computation.get_accounts_for_deletion():
            state.delete_account(account)
        for account in touched:
            if state.account_exists(account) and state.account_is_empty(account):
                state.delete_account(account)
        return computation

    def apply_deposit(self, tx: Any) -> Any:
        """A deposit: minted first, never refused (specs, protocol/deposits.md)."""
        state = self.vm_state
        sender = tx.sender
        if tx._inner.mint:
            state.delta_balance(sender, tx._inner.mint)
        nonce = state.get_nonce(sender)
        snapshot = state.snapshot()
        try:
            if tx.gas < max(tx.intrinsic_gas, _floor(tx, state.rules)):
                raise OutOfGas("deposit below intrinsic gas")
            state.increment_nonce(sender)
            creates = tx.to == CREATE_CONTRACT_ADDRESS
            code, delegation = (tx.data, None) if creates else self.get_code_at_address(tx.to)  # type: ignore
            message = Message(
                gas=tx.gas - tx.intrinsic_gas,
                to=tx.to,
                sender=sender,
                value=tx.value,
                data=b"" if creates else tx.data,
                code=code,
                create_address=generate_contract_address(sender, nonce) if creates else None,
                is_delegation=delegation is not None,
            )
            computation = self.finalize_computation(tx, self.build_computation(message, tx))  # type: ignore
            state.commit(snapshot)
        except VMError as error:
            state.revert(snapshot)
            state.increment_nonce(sender)
            message = Message(0, tx.to, sender, 0, b"", b"", create_address=sender if not tx.to else None)
            computation = state.get_computation(message, state.get_transaction_context(tx))
            computation.error = error
            computation.op_gas_used, computation.data_floor_gas = tx.gas, 0
        computation.deposit_nonce = nonce
        return computation


class _StockState:
    """OP's part of a py-evm state."""

    rules: Rules
    _l1: L1Parameters | None = None

    def l1_parameters(self) -> L1Parameters:
        """Read once per block, at its first paid transaction."""
        if self._l1 is None:
            self._l1 = fees.read_l1_parameters(self, self.rules)  # type: ignore[arg-type]
        return self._l1

    def get_transaction_context(self, tx: Any) -> Any:
        """A deposit's gas costs nothing."""
        if tx.type_id == DEPOSIT_TYPE:
            return self.get_transaction_context_class()(gas_price=0, origin=tx.sender)  # type: ignore
        return super().get_transaction_context(tx)  # type: ignore[misc]


class _StockVM:
    """OP's part of a py-evm VM."""

    @classmethod
    def finalize_gas_used(cls, tx: Any, computation: Any) -> int:
        return computation.op_gas_used  # type: ignore[no-any-return]

    @classmethod
    def make_receipt(cls, base_header: Any, tx: Any, computation: Any, state: Any) -> Any:
        receipt = super().make_receipt(base_header, tx, computation, state)  # type: ignore[misc]
        if tx.type_id == DEPOSIT_TYPE:
            receipt._inner = receipt._inner.copy(deposit_nonce=computation.deposit_nonce)
        return receipt


def _vm_class(rules: Rules) -> Any:
    """A py-evm VM with the rules of one OP fork."""
    prague = rules.isthmus
    state_base, executor_base = (
        (PragueState, PragueTransactionExecutor) if prague else (CancunState, CancunTransactionExecutor)
    )
    computation_base = PragueComputation if prague else CancunComputation
    typed_base, builder_base = (
        (PragueTypedTransaction, PragueTransactionBuilder)
        if prague
        else (CancunTypedTransaction, CancunTransactionBuilder)
    )
    receipt_base, receipts_base = (
        (PragueTypedReceipt, PragueReceiptBuilder) if prague else (CancunTypedReceipt, CancunReceiptBuilder)
    )
    vm_base = PragueVM if prague else CancunVM
    name = rules.name.capitalize()
    computation = type(
        f"{name}StockComputation", (computation_base,), {"_precompiles": precompiles.table(rules, native=False)}
    )
    receipt = type(
        f"{name}StockReceipt", (receipt_base,), {"codecs": {**receipt_base.codecs, DEPOSIT_TYPE: StockDepositReceipt}}
    )
    receipts = type(f"{name}StockReceipts", (receipts_base,), {"typed_receipt_class": receipt})
    typed = type(
        f"{name}StockTyped",
        (typed_base,),
        {
            "decoders": {**typed_base.decoders, DEPOSIT_TYPE: _DepositDecoder},
            "receipt_builder": receipts,
            "sender": property(lambda self: self._inner.sender),
        },
    )
    builder = type(f"{name}StockBuilder", (builder_base,), {"typed_transaction": typed})
    executor = type(f"{name}StockExecutor", (_StockExecutor, executor_base), {})
    state = type(
        f"{name}StockState",
        (_StockState, state_base),
        {"computation_class": computation, "transaction_executor_class": executor, "rules": rules},
    )
    return type(f"{name}StockVM", (_StockVM, vm_base), {"_state_class": state, "builder": builder})


STOCK_VMS = {rules.name: _vm_class(rules) for rules in ALL_RULES}


class StockBlock:
    """A block under construction on stock py-evm. `nodes` hold the parent's state (hash → trie node or code)."""

    def __init__(
        self, spec: ChainSpec, parent: Header, nodes: dict[bytes, bytes], attributes: PayloadAttributes
    ) -> None:
        self.spec, self.parent, self.attributes = spec, parent, attributes
        self.rules = spec.rules(attributes.timestamp)
        database = ChainDB(AtomicDB(MemoryDB(dict(nodes))))
        database.db[parent.hash] = parent.rlp()
        header_class = PragueBlockHeader if self.rules.isthmus else CancunBlockHeader
        self.header = header_class(
            parent_hash=parent.hash,
            coinbase=attributes.fee_recipient,
            state_root=parent.state_root,
            difficulty=0,
            block_number=parent.number + 1,
            gas_limit=attributes.gas_limit,
            timestamp=attributes.timestamp,
            extra_data=fees.encode_extra_data(
                spec, attributes.timestamp, attributes.eip1559_params, attributes.min_base_fee
            ),
            mix_hash=attributes.prev_randao,
            nonce=bytes(8),
            base_fee_per_gas=fees.next_base_fee(spec, parent),
            parent_beacon_block_root=attributes.parent_beacon_block_root,
        )
        vm_class = STOCK_VMS[self.rules.name]
        self.vm = vm_class(self.header, database, ChainContext(spec.chain_id), ConsensusContext(database.db))
        self.vm.block_preprocessing(self.vm.get_block())
        self.transactions: list[Any] = []
        self.receipts: list[Any] = []
        self.da_footprint = 0

    def append(self, raw: bytes) -> Any:
        """Execute one transaction; raises eth_utils.ValidationError, leaving the block as it was."""
        tx = self.vm.builder.decode(raw)
        state = self.vm.state
        state.lock_changes()
        snapshot = state.snapshot()
        try:
            self.vm.validate_transaction_against_header(self.header, tx)
            computation = state.apply_transaction(tx)
        except ValidationError:
            state.revert(snapshot)
            raise
        state.commit(snapshot)
        receipt = self.vm.make_receipt(self.header, tx, computation, state)
        self.header = self.vm.add_receipt_to_header(self.header, receipt)
        if tx.type_id != DEPOSIT_TYPE:
            self.da_footprint += fees.da_footprint(fastlz_size(raw), state.l1_parameters())
        self.transactions.append(tx)
        self.receipts.append(receipt)
        return receipt

    def seal(self) -> Header:
        """The header of the block so far."""
        state = self.vm.state
        state_root = state.make_state_root()
        withdrawals_root = EMPTY_ROOT
        if self.rules.isthmus:
            withdrawals_root = state._account_db._get_storage_root(fees.MESSAGE_PASSER)
        return Header(
            parent_hash=self.parent.hash,
            fee_recipient=self.header.coinbase,
            state_root=state_root,
            transactions_root=make_trie_root_and_nodes(tuple(self.transactions))[0],
            receipts_root=make_trie_root_and_nodes(tuple(self.receipts))[0],
            logs_bloom=self.header.bloom.to_bytes(256, "big"),
            number=self.header.block_number,
            gas_limit=self.header.gas_limit,
            gas_used=self.header.gas_used,
            timestamp=self.header.timestamp,
            extra_data=self.header.extra_data,
            prev_randao=self.header.mix_hash,
            base_fee_per_gas=self.header.base_fee_per_gas,
            parent_beacon_root=self.header.parent_beacon_block_root,
            withdrawals_root=withdrawals_root,
            blob_gas_used=self.da_footprint,
            requests_hash=EMPTY_REQUESTS_HASH if self.rules.isthmus else None,
        )


def build_stock(fixture: Fixture, sub_blocks: int = 1) -> Header:
    """Rebuild a fixture's block on stock py-evm, sealing after each of `sub_blocks` pieces; raises MissingState."""
    try:
        return _build_stock(fixture, sub_blocks)
    except (EVMMissingData, MissingTrieNode) as error:
        raise MissingState(f"the witness has nothing under {bytes(error.missing_node_hash).hex()}") from error
    except KeyError as error:
        raise MissingState(f"the witness has nothing under {error}") from error


def _build_stock(fixture: Fixture, sub_blocks: int) -> Header:
    block = StockBlock(fixture.spec, fixture.parent, fixture.witness, fixture.attributes)
    raws = fixture.attributes.transactions
    at = 0
    for piece in range(sub_blocks):
        end = len(raws) * (piece + 1) // sub_blocks
        for raw in raws[at:end]:
            block.append(raw)
        at = end
        try:
            header = block.seal()
        except MissingTrieNode:
            if at == len(raws):  # the roots in between may need more than the witness of the whole block
                raise
    return header
