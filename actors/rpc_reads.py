"""The `eth_*` methods that read: blocks, transactions, receipts, accounts, logs, fees; each knows `pending`."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from actors.rpc_server import Method
from actors.rpc_view import Resolved, RpcView
from flashblocks.execution.chain import ChainBlock
from flashblocks.execution.fee_history import (
    FEE_HISTORY_BLOCKS_MAX,
    TIP_BLOCKS,
    fee_history,
    read_percentiles,
    suggested_tip,
)
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.proofs import account_proof
from flashblocks.execution.rpc_arguments import (
    BlockName,
    LogFilter,
    address,
    block_name,
    log_filter,
    proof_keys,
    slot,
)
from flashblocks.execution.transaction import Transaction
from flashblocks.preconf import shapes
from flashblocks.preconf.sent import SentTransactions
from flashblocks.preconf.snapshot import PendingSnapshot
from flashblocks.wire.hexadecimal import data, quantity, to_bytes, to_int
from flashblocks.wire.jsonrpc import INVALID_PARAMS, LIMIT_EXCEEDED, SERVER_ERROR, RpcError

PENDING = BlockName("pending")
LOG_BLOCKS_MAX = 10_000
LOGS_MAX = 20_000

T = TypeVar("T")
Heavy = Callable[[Callable[[], T]], Awaitable[T]]


class RpcReads:
    """The reading methods of one rpc-node. `heavy` runs long work beside the loop.

    `pool_nonce` and `waiting` ask the ingress too: for the next nonce, and for a transaction that no block holds yet.
    """

    def __init__(
        self,
        view: RpcView,
        sent: SentTransactions,
        heavy: Heavy[Any],
        pool_nonce: Callable[[bytes, int], Awaitable[int]],
        waiting: Callable[[bytes], Awaitable[Transaction | None]],
    ) -> None:
        self._view, self._sent, self._heavy, self._pool_nonce = view, sent, heavy, pool_nonce
        self._waiting = waiting

    def methods(self) -> dict[str, Method]:
        """Name → coroutine, as `RpcServer` takes them."""
        return {
            "web3_sha3": self.sha3,
            "net_version": self.net_version,
            "net_listening": self.listening,
            "net_peerCount": self.peer_count,
            "eth_chainId": self.chain_id,
            "eth_syncing": self.syncing,
            "eth_accounts": self.accounts,
            "eth_blockNumber": self.block_number,
            "eth_gasPrice": self.gas_price,
            "eth_maxPriorityFeePerGas": self.max_priority_fee,
            "eth_blobBaseFee": self.blob_base_fee,
            "eth_feeHistory": self.fee_history,
            "eth_getBlockByNumber": self.block_by_number,
            "eth_getBlockByHash": self.block_by_hash,
            "eth_getHeaderByNumber": self.header_by_number,
            "eth_getHeaderByHash": self.header_by_hash,
            "eth_getBlockTransactionCountByNumber": self.count_by_number,
            "eth_getBlockTransactionCountByHash": self.count_by_hash,
            "eth_getUncleCountByBlockNumber": self.uncles_by_number,
            "eth_getUncleCountByBlockHash": self.uncles_by_hash,
            "eth_getBlockReceipts": self.block_receipts,
            "eth_getTransactionByHash": self.transaction_by_hash,
            "eth_getRawTransactionByHash": self.raw_transaction_by_hash,
            "eth_getTransactionByBlockNumberAndIndex": self.transaction_by_number_and_index,
            "eth_getTransactionByBlockHashAndIndex": self.transaction_by_hash_and_index,
            "eth_getTransactionReceipt": self.receipt,
            "eth_getBalance": self.balance,
            "eth_getTransactionCount": self.nonce,
            "eth_getCode": self.code,
            "eth_getStorageAt": self.storage,
            "eth_getProof": self.proof,
            "eth_getLogs": self.logs,
        }

    # The chain ------------------------------------------------------------------------------------------------------

    async def sha3(self, value: str) -> str:
        """Keccak-256 of the bytes."""
        return data(keccak256(to_bytes(value)))

    async def net_version(self) -> str:
        """The chain id in decimal."""
        return str(self._view.spec.chain_id)

    async def listening(self) -> bool:
        """Always: this node has no peers to listen for, but serves."""
        return True

    async def peer_count(self) -> str:
        """None: blocks come from execution clients by RPC."""
        return "0x0"

    async def chain_id(self) -> str:
        """EIP-695."""
        return quantity(self._view.spec.chain_id)

    async def syncing(self) -> bool:
        """False: what is answered is followed; `/readyz` tells how closely."""
        return False

    async def accounts(self) -> list[str]:
        """None: this node holds no keys."""
        return []

    async def block_number(self) -> str:
        """The height of the newest sealed block."""
        return quantity(self._view.chain.head.number)

    # Fees -----------------------------------------------------------------------------------------------------------

    async def gas_price(self) -> str:
        """The newest base fee, and the suggested tip on it."""
        found = self._view.block("pending")
        assert found is not None
        return quantity(found.header.base_fee_per_gas + self._tip())

    async def max_priority_fee(self) -> str:
        """A tip that gets in."""
        return quantity(self._tip())

    async def blob_base_fee(self) -> str:
        """The least there is: OP chains have no blob transactions."""
        return "0x1"

    def _tip(self) -> int:
        head = self._view.chain.head.number
        blocks = [self._view.chain.by_number(number) for number in range(max(1, head - TIP_BLOCKS + 1), head + 1)]
        return suggested_tip([block for block in blocks if block is not None])

    async def fee_history(self, count: Any, newest: Any = "latest", percentiles: Any = None) -> dict[str, Any]:
        """eth_feeHistory; up to `pending` the open block is the last one, as full as it is by now."""
        wanted = count if isinstance(count, int) and not isinstance(count, bool) else to_int(count)
        values = read_percentiles(percentiles)
        found = self._view.find(block_name(newest))
        if found is None:
            raise RpcError(SERVER_ERROR, f"request beyond head block: requested {newest}, head {self._head()}")
        if wanted == 0:
            return {"oldestBlock": "0x0", "gasUsedRatio": None}
        first = max(0, found.number - min(max(wanted, 1), FEE_HISTORY_BLOCKS_MAX) + 1)

        def work() -> dict[str, Any]:
            before = [self._view.chain.by_number(number) for number in range(first, found.number)]
            return fee_history(self._view.spec, [*(block for block in before if block is not None), found], values)

        answer: dict[str, Any] = await self._heavy(work)
        return answer

    def _head(self) -> int:
        return self._view.chain.head.number

    # Blocks ---------------------------------------------------------------------------------------------------------

    async def block_by_number(self, number: Any, full: bool = False) -> dict[str, Any] | None:
        """eth_getBlockByNumber; the pending block has a hash of zeros."""
        return _block(self._view.block(number), full)

    async def block_by_hash(self, block_hash: str, full: bool = False) -> dict[str, Any] | None:
        """eth_getBlockByHash; also finds the pending block under its hash of this moment."""
        found = self._view.by_hash(to_bytes(block_hash, 32))
        return _block(found, full, to_bytes(block_hash, 32))

    async def header_by_number(self, number: Any) -> dict[str, Any] | None:
        """geth's eth_getHeaderByNumber."""
        return _header(self._view.block(number))

    async def header_by_hash(self, block_hash: str) -> dict[str, Any] | None:
        """geth's eth_getHeaderByHash."""
        return _header(self._view.by_hash(to_bytes(block_hash, 32)))

    async def count_by_number(self, number: Any) -> str | None:
        """eth_getBlockTransactionCountByNumber."""
        return _count(self._view.block(number))

    async def count_by_hash(self, block_hash: str) -> str | None:
        """eth_getBlockTransactionCountByHash."""
        return _count(self._view.by_hash(to_bytes(block_hash, 32)))

    async def uncles_by_number(self, number: Any) -> str | None:
        """None ever."""
        return None if self._view.block(number) is None else "0x0"

    async def uncles_by_hash(self, block_hash: str) -> str | None:
        """None ever."""
        return None if self._view.by_hash(to_bytes(block_hash, 32)) is None else "0x0"

    async def block_receipts(self, number: Any) -> list[dict[str, Any]] | None:
        """eth_getBlockReceipts, pending included."""
        found = self._view.block(number)
        if isinstance(found, PendingSnapshot):
            return shapes.pending_receipts(found)
        return None if found is None else shapes.block_receipts(found)

    # Transactions ---------------------------------------------------------------------------------------------------

    async def transaction_by_hash(self, tx_hash: str) -> dict[str, Any] | None:
        """eth_getTransactionByHash: sealed, then preconfirmed, then sent and waiting."""
        wanted = to_bytes(tx_hash, 32)
        place = self._view.transaction(wanted)
        if place is not None:
            return _transaction(*place)
        waiting = await self._waiting(wanted)
        place = self._view.transaction(wanted)  # it may have come in while the ingress was asked
        if place is not None:
            return _transaction(*place)
        return None if waiting is None else shapes.pool_transaction_json(waiting)

    async def raw_transaction_by_hash(self, tx_hash: str) -> str | None:
        """The bytes of a transaction."""
        wanted = to_bytes(tx_hash, 32)
        place = self._view.transaction(wanted)
        found = await self._waiting(wanted) if place is None else place[0].transactions[place[1]]
        return None if found is None else data(found.raw)

    async def transaction_by_number_and_index(self, number: Any, index: str) -> dict[str, Any] | None:
        """eth_getTransactionByBlockNumberAndIndex."""
        return _transaction_at(self._view.block(number), to_int(index))

    async def transaction_by_hash_and_index(self, block_hash: str, index: str) -> dict[str, Any] | None:
        """eth_getTransactionByBlockHashAndIndex."""
        return _transaction_at(self._view.by_hash(to_bytes(block_hash, 32)), to_int(index))

    async def receipt(self, tx_hash: str) -> dict[str, Any] | None:
        """eth_getTransactionReceipt: the sealed one first, then the preconfirmed one."""
        place = self._view.transaction(to_bytes(tx_hash, 32))
        return None if place is None else receipt_json(*place)

    # Accounts -------------------------------------------------------------------------------------------------------

    async def balance(self, account: str, block: Any = None) -> str:
        """eth_getBalance in wei."""
        _, state = self._view.state(block)
        return quantity(state.balance(address(account)))

    async def nonce(self, account: str, block: Any = None) -> str:
        """eth_getTransactionCount; `pending` counts flashblocks and what waits in the pool."""
        who = address(account)
        _, state = self._view.state(block)
        nonce = state.nonce(who)
        if block_name(block) == PENDING:
            nonce = await self._pool_nonce(who, self._sent.next_nonce(who, nonce))
        return quantity(nonce)

    async def code(self, account: str, block: Any = None) -> str:
        """eth_getCode."""
        _, state = self._view.state(block)
        return data(state.code(address(account)))

    async def storage(self, account: str, position: str, block: Any = None) -> str:
        """eth_getStorageAt: the 32-byte word."""
        _, state = self._view.state(block)
        return data(state.storage(address(account), slot(position)).to_bytes(32, "big"))

    async def proof(self, account: str, keys: Any, block: Any = None) -> dict[str, Any]:
        """Account and slots with the nodes that prove them under the block's state root (EIP-1186), pending too."""
        state, who, asked = self._view.state(block)[1], address(account), proof_keys(keys)
        return dict(await self._heavy(lambda: account_proof(state, who, asked)))

    # Logs -----------------------------------------------------------------------------------------------------------

    async def logs(self, criteria: Any = None) -> list[dict[str, Any]]:
        """eth_getLogs; a range that ends in `pending` has the preconfirmed logs after the sealed ones.

        One that begins there and names no end is of nothing else, as in the deployed node.
        """
        wanted = log_filter(criteria)
        if wanted.block_hash is not None:
            found = self._view.by_hash(wanted.block_hash)
            if found is None:
                raise RpcError(SERVER_ERROR, "unknown block")
            return _logs_of(found, wanted)
        end_name = PENDING if ends_in_pending(criteria) else wanted.to_block
        first, last = self._view.find(wanted.from_block), self._view.find(end_name)
        start = _height(first, wanted.from_block, self._head())
        end = _height(last, end_name, self._head())
        if start > end:
            raise RpcError(INVALID_PARAMS, "invalid block range params")
        if end - start >= LOG_BLOCKS_MAX:
            raise RpcError(INVALID_PARAMS, f"block range is too wide: at most {LOG_BLOCKS_MAX} blocks")
        pending = last if isinstance(last, PendingSnapshot) else None
        answer: list[dict[str, Any]] = await self._heavy(lambda: self._collect(wanted, start, end, pending))
        return answer

    def _collect(
        self, wanted: LogFilter, start: int, end: int, pending: PendingSnapshot | None
    ) -> list[dict[str, Any]]:
        began, collected = time.monotonic(), list[dict[str, Any]]()
        last = end if pending is None else min(end, pending.number - 1)
        for number in range(start, min(last, self._head()) + 1):
            block = self._view.chain.by_number(number)
            if block is not None:
                collected += shapes.block_logs(block, wanted)
            if len(collected) > LOGS_MAX:
                raise RpcError(LIMIT_EXCEEDED, f"query returned more than {LOGS_MAX} results")
            if time.monotonic() - began > 5.0:
                raise RpcError(LIMIT_EXCEEDED, "query timeout exceeded")
        if pending is not None:
            collected += shapes.pending_logs(pending, wanted)
        return collected


def ends_in_pending(criteria: Any) -> bool:
    """Whether a log filter's range reaches into the open block."""
    if not isinstance(criteria, dict):
        return False
    end = criteria.get("toBlock")
    return bool(end == "pending" or (end is None and criteria.get("fromBlock") == "pending"))


def receipt_json(found: Resolved, position: int) -> dict[str, Any]:
    """The receipt at a place of the chain or of the pending block."""
    if isinstance(found, PendingSnapshot):
        return shapes.pending_receipt(found, position)
    return shapes.block_receipt(found, position)


def _block(found: Resolved | None, full: bool, asked_hash: bytes | None = None) -> dict[str, Any] | None:
    if isinstance(found, PendingSnapshot):
        if asked_hash is not None:
            return shapes.pending_block_json(found, full=full, block_hash=asked_hash)
        return shapes.pending_block_json(found, full=full)
    return None if found is None else shapes.block_json(found, full=full)


def _header(found: Resolved | None) -> dict[str, Any] | None:
    if isinstance(found, PendingSnapshot):
        return shapes.header_json(found.header, bytes(32))
    return None if found is None else shapes.header_json(found.header)


def _count(found: Resolved | None) -> str | None:
    return None if found is None else quantity(len(found.transactions))


def _transaction(found: Resolved, position: int) -> dict[str, Any]:
    if isinstance(found, PendingSnapshot):
        return shapes.pending_transaction_json(found, position)
    return shapes.block_transaction_json(found, position)


def _transaction_at(found: Resolved | None, position: int) -> dict[str, Any] | None:
    if found is None or position >= len(found.transactions):
        return None
    return _transaction(found, position)


def _logs_of(found: Resolved, wanted: LogFilter) -> list[dict[str, Any]]:
    if isinstance(found, ChainBlock):
        return shapes.block_logs(found, wanted)
    return shapes.pending_logs(found, wanted)


def _height(found: Resolved | None, name: BlockName, head: int) -> int:
    if found is not None:
        return found.number
    if name.number is not None and name.number > head:
        return name.number
    raise RpcError(SERVER_ERROR, "unknown block")
