"""What the transaction pool refuses, in the words of go-ethereum's core/txpool/validation.go and core/error.go."""

import msgspec

from flashblocks.execution.chain_spec import ChainSpec, Rules
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.fees import L1Parameters, l1_fee, next_base_fee, operator_fee, read_l1_parameters
from flashblocks.execution.header import Header
from flashblocks.execution.journal import Journal
from flashblocks.execution.state import WorldState
from flashblocks.execution.transaction import BLOB_TYPE, Transaction, decode_transaction

TRANSACTION_SIZE_BYTES_MAX = 128 * 1024  # geth: txMaxSize, four slots of 32 KiB
INITCODE_SIZE_BYTES_MAX = 49_152  # EIP-3860
NONCE_END = (1 << 64) - 1  # EIP-2681
FEE_END = 1 << 256


class PoolHead(msgspec.Struct, frozen=True):
    """What the pool needs of the chain's head: the state after it, and what the next block will demand."""

    header: Header
    state: WorldState
    rules: Rules
    base_fee: int  # wei, of the next block
    l1: L1Parameters

    @staticmethod
    def of(spec: ChainSpec, header: Header, state: WorldState) -> "PoolHead":
        """Derive it from the head block and the state after it."""
        rules = spec.rules(header.timestamp)
        return PoolHead(header, state, rules, next_base_fee(spec, header), read_l1_parameters(Journal(state), rules))

    def cost(self, tx: Transaction) -> int:
        """The most the transaction can take from its sender, in wei: gas, value, L1 data fee and operator fee."""
        rollup = operator_fee(tx.gas_limit, self.l1, self.rules)
        if self.l1.base_fee or self.l1.blob_base_fee:
            rollup += l1_fee(tx.fee_size, self.l1)
        return tx.gas_limit * tx.max_fee_per_gas + tx.value + rollup


def decode_for_pool(raw: bytes, size_bytes_max: int = TRANSACTION_SIZE_BYTES_MAX) -> Transaction:
    """Decode what a client sent; raises InvalidTransaction. Sizes are refused before anything is parsed."""
    if len(raw) > size_bytes_max:
        raise InvalidTransaction(f"oversized data: transaction size {len(raw)}, limit {size_bytes_max}")
    tx = decode_transaction(raw)
    if tx.is_deposit or tx.type == BLOB_TYPE:
        raise InvalidTransaction("transaction type not supported")
    return tx


def check_alone(tx: Transaction, chain_id: int, head: PoolHead, tip_wei_min: int) -> None:
    """Refuse what no sender's account could make right; raises InvalidTransaction."""
    if tx.is_deposit:
        raise InvalidTransaction("transaction type not supported")
    if tx.to is None and len(tx.data) > INITCODE_SIZE_BYTES_MAX:
        raise InvalidTransaction(
            f"max initcode size exceeded: code size {len(tx.data)}, limit {INITCODE_SIZE_BYTES_MAX}"
        )
    if tx.gas_limit > head.header.gas_limit:
        raise InvalidTransaction("exceeds block gas limit")
    if tx.max_priority_fee_per_gas > tx.max_fee_per_gas:
        raise InvalidTransaction("max priority fee per gas higher than max fee per gas")
    if tx.chain_id is None:
        raise InvalidTransaction("only replay-protected (EIP-155) transactions allowed over RPC")
    if tx.chain_id != chain_id:
        raise InvalidTransaction(f"invalid sender: invalid chain id for signer: have {tx.chain_id} want {chain_id}")
    if tx.nonce >= NONCE_END:
        raise InvalidTransaction("nonce has max value")
    if tx.gas_limit < tx.intrinsic_gas:
        raise InvalidTransaction(f"intrinsic gas too low: gas {tx.gas_limit}, minimum needed {tx.intrinsic_gas}")
    if head.rules.isthmus and tx.gas_limit < tx.floor_gas:
        raise InvalidTransaction(
            f"insufficient gas for floor data gas cost: gas {tx.gas_limit}, minimum needed {tx.floor_gas}"
        )
    if tx.max_priority_fee_per_gas < tip_wei_min:
        raise InvalidTransaction(
            f"transaction underpriced: gas tip cap {tx.max_priority_fee_per_gas}, minimum needed {tip_wei_min}"
        )


def check_sender(tx: Transaction, head: PoolHead, pending: WorldState | None, queued_cost: int) -> None:
    """Refuse what the sender's account does not allow; raises InvalidTransaction.

    `pending` is the state after the flashblocks on top of the head, where there are any: what came in there can be
    spent, what was sent there cannot be sent again. `queued_cost` (wei) is what the sender's other transactions in the
    pool may take, the replaced one left out.
    """
    account = head.state.account(tx.sender)
    nonce, balance = (account.nonce, account.balance) if account else (0, 0)
    if pending is not None and (later := pending.account(tx.sender)) is not None:
        # The pool still holds what the flashblocks have included, so their cost counts against the larger balance.
        nonce, balance = max(nonce, later.nonce), max(balance, later.balance)
    if account is not None and account.code.raw and account.code.delegate is None:
        raise InvalidTransaction(f"sender not an eoa: address 0x{tx.sender.hex()}, len(code): {len(account.code.raw)}")
    if tx.nonce < nonce:
        raise InvalidTransaction(f"nonce too low: next nonce {nonce}, tx nonce {tx.nonce}")
    cost = head.cost(tx)
    if balance < cost:
        raise InvalidTransaction(
            f"insufficient funds for gas * price + value: balance {balance}, tx cost {cost}, overshot {cost - balance}"
        )
    if balance < queued_cost + cost:
        raise InvalidTransaction(
            "insufficient funds for gas * price + value: "
            f"balance {balance}, queued cost {queued_cost}, tx cost {cost}, overshot {queued_cost + cost - balance}"
        )
