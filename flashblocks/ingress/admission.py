"""What a raw transaction must be before it is handed to anyone, in the words of the clients that wallets know.

Checked once, here, so that a mistake is answered at once and readably, and ten pools are not asked about rubbish.
The stateless part (sizes, type, chain id, gas) is the pool's own; the account's part works on what the ingress knows
of the sender and is skipped where it knows nothing: the pools look again.
"""

import msgspec

from flashblocks.execution.chain_spec import ISTHMUS
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.header import ZERO_HASH, Header
from flashblocks.execution.open_block import NO_L1_PARAMETERS
from flashblocks.execution.pool_rules import PoolHead, check_alone, decode_for_pool
from flashblocks.execution.state import WorldState
from flashblocks.execution.transaction import Transaction

NONCES_AHEAD_MAX = 1_024  # as many of one sender as a pool holds
TIP_WEI_MIN = 0
REPLACEMENT_BUMP_PERCENT = 10


class Terms(msgspec.Struct, frozen=True):
    """What the next block asks of every transaction: chain id, gas limit, base fee (wei per gas)."""

    chain_id: int
    gas_limit: int
    base_fee: int


class AccountFacts(msgspec.Struct, frozen=True):
    """What is known of a sender: its next nonce and its balance (wei), the open block's flashblocks included."""

    nonce: int
    balance: int


def read(raw: bytes) -> Transaction:
    """Decode the bytes and recover the sender; raises InvalidTransaction with a client's text."""
    transaction = decode_for_pool(raw)
    _ = transaction.sender
    return transaction


def check(transaction: Transaction, terms: Terms, account: AccountFacts | None, queued_cost: int = 0) -> None:
    """Refuse what cannot be included; raises InvalidTransaction.

    `queued_cost` (wei) is what the sender's other waiting transactions may take, a replaced one left out.
    """
    check_alone(transaction, terms.chain_id, _pool_head(terms), TIP_WEI_MIN)
    sender = f"0x{transaction.sender.hex()}"
    if transaction.max_fee_per_gas < terms.base_fee:
        raise InvalidTransaction(
            f"max fee per gas less than block base fee: address {sender}, "
            f"maxFeePerGas: {transaction.max_fee_per_gas}, baseFee: {terms.base_fee}"
        )
    if account is None:
        return
    if transaction.nonce < account.nonce:
        raise InvalidTransaction(f"nonce too low: next nonce {account.nonce}, tx nonce {transaction.nonce}")
    if transaction.nonce >= account.nonce + NONCES_AHEAD_MAX:
        raise InvalidTransaction(
            f"nonce too high: address {sender}, tx: {transaction.nonce} state: {account.nonce}, "
            f"at most {NONCES_AHEAD_MAX} ahead"
        )
    cost = most_it_takes(transaction)
    if account.balance < cost + queued_cost:
        queued = f"queued cost {queued_cost}, " if account.balance >= cost else ""
        overshot = cost + (queued_cost if queued else 0) - account.balance
        raise InvalidTransaction(
            f"insufficient funds for gas * price + value: balance {account.balance}, "
            f"{queued}tx cost {cost}, overshot {overshot}"
        )


def most_it_takes(transaction: Transaction) -> int:
    """Wei a transaction takes from its sender at most, but for L1 data and operator fees (the pools add those)."""
    return transaction.gas_limit * transaction.max_fee_per_gas + transaction.value


def outbids(transaction: Transaction, old: Transaction) -> bool:
    """Whether it may take the place of `old` (same sender and nonce): both fees higher by a tenth, as in every pool."""
    factor = 100 + REPLACEMENT_BUMP_PERCENT
    return (
        transaction.max_fee_per_gas * 100 >= old.max_fee_per_gas * factor
        and transaction.max_priority_fee_per_gas * 100 >= old.max_priority_fee_per_gas * factor
        and transaction.max_fee_per_gas > old.max_fee_per_gas
        and transaction.max_priority_fee_per_gas > old.max_priority_fee_per_gas
    )


def _pool_head(terms: Terms) -> PoolHead:
    """The pool's stateless checks look at a head; ours has no state, and the gas limit of the open block."""
    header = Header(
        parent_hash=ZERO_HASH,
        fee_recipient=bytes(20),
        state_root=ZERO_HASH,
        number=0,
        gas_limit=terms.gas_limit,
        timestamp=0,
        base_fee_per_gas=terms.base_fee,
    )
    return PoolHead(header, WorldState(), ISTHMUS, terms.base_fee, NO_L1_PARAMETERS)
