"""Ethereum JSON-RPC of an execution client: reads at any recent block, calls, logs, and sending transactions.

`pending` is the latest block here: an execution client publishes no pending state of its own, the rpc-node does.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from actors.rpc_server import Method
from flashblocks.execution.access_list import create_access_list
from flashblocks.execution.calls import GAS_CAP_DEFAULT, call, estimate_gas
from flashblocks.execution.chain import ChainBlock
from flashblocks.execution.errors import CallReverted, InvalidTransaction, OutOfTime
from flashblocks.execution.fee_history import (
    FEE_HISTORY_BLOCKS_MAX,
    TIP_BLOCKS,
    fee_history,
    read_percentiles,
    suggested_tip,
)
from flashblocks.execution.fees import next_base_fee
from flashblocks.execution.proofs import account_proof
from flashblocks.execution.reverts import revert_error
from flashblocks.execution.rpc_arguments import (
    LATEST,
    BlockName,
    LogFilter,
    address,
    as_if,
    block_name,
    call_arguments,
    log_filter,
    overrides,
    proof_keys,
    slot,
)
from flashblocks.execution.rpc_shapes import (
    access_list_json,
    block_json,
    block_receipts_json,
    header_json,
    log_json,
    numbered_logs,
    transaction_json,
)
from flashblocks.execution.state import WorldState
from flashblocks.wire.hexadecimal import data, quantity, to_bytes, to_int
from flashblocks.wire.jsonrpc import INVALID_PARAMS, LIMIT_EXCEEDED, SERVER_ERROR, RpcError

if TYPE_CHECKING:
    from actors.execution_client import ExecutionClient

CLIENT_VERSION = "flashblocks/v0.1.0/python"
LOG_BLOCKS_MAX = 10_000
LOGS_ANSWERED_MAX = 20_000
SLICE_S = 0.010
CALL_S_MAX = 0.200  # the length of a flashblock; the rpc-node, which builds nothing, allows more
CALL_TIMED_OUT = f"execution aborted (timeout = {CALL_S_MAX * 1000:.0f}ms)"


class EthRpc:
    """The methods of the public port; the engine port serves them too."""

    def __init__(self, client: ExecutionClient) -> None:
        self.client = client
        self.chain = client.chain

    def methods(self) -> dict[str, Method]:
        """Method name → handler."""
        chain_id = self.client.spec.chain_id
        return {
            "web3_clientVersion": _constant(CLIENT_VERSION),
            "net_version": _constant(str(chain_id)),
            "net_listening": _constant(True),
            "net_peerCount": _constant(quantity(len(self.client.options.peer_urls))),
            "eth_chainId": _constant(quantity(chain_id)),
            "eth_accounts": _constant([]),
            "eth_blockNumber": self.block_number,
            "eth_syncing": self.syncing,
            "eth_getBlockByNumber": self.get_block,
            "eth_getBlockByHash": self.get_block,
            "eth_getHeaderByNumber": self.get_header,
            "eth_getHeaderByHash": self.get_header,
            "eth_getBlockTransactionCountByNumber": self.transaction_count_of_block,
            "eth_getBlockTransactionCountByHash": self.transaction_count_of_block,
            "eth_getBlockReceipts": self.get_block_receipts,
            "eth_getTransactionByHash": self.get_transaction,
            "eth_getTransactionByBlockNumberAndIndex": self.get_transaction_at,
            "eth_getTransactionByBlockHashAndIndex": self.get_transaction_at,
            "eth_getRawTransactionByHash": self.get_raw_transaction,
            "eth_getTransactionReceipt": self.get_receipt,
            "eth_getTransactionCount": self.get_nonce,
            "eth_getBalance": self.get_balance,
            "eth_getCode": self.get_code,
            "eth_getStorageAt": self.get_storage,
            "eth_getProof": self.get_proof,
            "eth_call": self.call,
            "eth_createAccessList": self.create_access_list,
            "eth_estimateGas": self.estimate_gas,
            "eth_gasPrice": self.gas_price,
            "eth_maxPriorityFeePerGas": self.max_priority_fee,
            "eth_blobBaseFee": _constant("0x1"),
            "eth_feeHistory": self.fee_history,
            "eth_getLogs": self.get_logs,
            "eth_sendRawTransaction": self.send_raw_transaction,
            "txpool_status": self.pool_status,
            "txpool_content": self.pool_content,
            "txpool_contentFrom": self.pool_content_from,
            "txpool_inspect": self.pool_inspect,
            "debug_getRawBlock": self.raw_block,
            "debug_getRawHeader": self.raw_header,
            "debug_getRawReceipts": self.raw_receipts,
            "debug_getRawTransaction": self.get_raw_transaction,
            "miner_setMaxDASize": self.set_max_da_size,
            "miner_setGasLimit": self.set_gas_limit,
            "miner_setGasPrice": _accept,
            "miner_setExtra": _accept,
            "flashblocks_status": self.status,
        }

    # -- naming blocks

    def find(self, name: BlockName) -> ChainBlock | None:
        """The block that a caller means, or None."""
        chain = self.chain
        if name.hash is not None:
            return chain.block(name.hash)
        if name.number is not None:
            return chain.by_number(name.number)
        if name.tag == "earliest":
            return chain.by_number(0)
        if name.tag in ("safe", "finalized"):
            block = chain.block(chain.safe_hash if name.tag == "safe" else chain.finalized_hash)
            if block is None:
                raise RpcError(SERVER_ERROR, f"{name.tag} block not found")  # geth's words, which op-node looks for
            return block
        return chain.head

    def state_at(self, value: Any) -> tuple[ChainBlock, WorldState]:
        """The block a caller names and the state after it; raises RpcError."""
        block = self.find(block_name(value))
        if block is None:
            raise RpcError(SERVER_ERROR, "header not found")
        if block.state is None:
            raise RpcError(SERVER_ERROR, f"historical state {data(block.header.state_root)} is not available")
        return block, block.state

    # -- blocks and transactions

    async def block_number(self) -> str:
        """The head's number."""
        return quantity(self.chain.head.number)

    async def syncing(self) -> Any:
        """False, or how far a backfill is."""
        target = self.client.backfill.target_number
        if target is None:
            return False
        current = quantity(self.chain.head.number)
        return {"startingBlock": current, "currentBlock": current, "highestBlock": quantity(target)}

    async def get_block(self, name: Any, full: bool = False) -> Any:
        """A block with hashes, or with whole transactions."""
        block = self.find(block_name(name))
        if block is None:
            return None
        return block_json(block.header, block.transactions, block.receipts, full=full)

    async def get_header(self, name: Any) -> Any:
        """A block's header."""
        block = self.find(block_name(name))
        return None if block is None else header_json(block.header)

    async def transaction_count_of_block(self, name: Any) -> Any:
        """How many transactions a block has."""
        block = self.find(block_name(name))
        return None if block is None else quantity(len(block.transactions))

    async def get_block_receipts(self, name: Any) -> Any:
        """Every receipt of a block."""
        block = self.find(block_name(name))
        return None if block is None else block_receipts_json(block.header, block.transactions, block.receipts)

    async def get_transaction(self, tx_hash: Any) -> Any:
        """A transaction of the chain, else of the pool."""
        wanted = to_bytes(tx_hash, 32, "transaction hash")
        found = self.chain.find_transaction(wanted)
        if found is not None:
            return _transaction_at(*found)
        waiting = self.client.pool.get(wanted)
        return None if waiting is None else transaction_json(waiting)

    async def get_transaction_at(self, name: Any, index: Any) -> Any:
        """A transaction by its place."""
        block, position = self.find(block_name(name)), to_int(index, "index")
        return None if block is None or position >= len(block.transactions) else _transaction_at(block, position)

    async def get_raw_transaction(self, tx_hash: Any) -> Any:
        """The encoded transaction."""
        wanted = to_bytes(tx_hash, 32, "transaction hash")
        found = self.chain.find_transaction(wanted)
        tx = found[0].transactions[found[1]] if found is not None else self.client.pool.get(wanted)
        return "0x" if tx is None else data(tx.raw)

    async def get_receipt(self, tx_hash: Any) -> Any:
        """The receipt of a transaction of the chain."""
        found = self.chain.find_transaction(to_bytes(tx_hash, 32, "transaction hash"))
        if found is None:
            return None
        block, index = found
        return block_receipts_json(block.header, block.transactions, block.receipts, only=index)[0]

    # -- accounts

    async def get_nonce(self, account: Any, name: Any = None) -> str:
        """The next nonce; `pending` counts what waits in the pool without a gap."""
        wanted = address(account)
        nonce = self.state_at(name)[1].nonce(wanted)
        if block_name(name).tag == "pending":
            nonce = self.client.pool.next_nonce(wanted, nonce)
        return quantity(nonce)

    async def get_balance(self, account: Any, name: Any = None) -> str:
        """Wei."""
        return quantity(self.state_at(name)[1].balance(address(account)))

    async def get_code(self, account: Any, name: Any = None) -> str:
        """Contract code."""
        return data(self.state_at(name)[1].code(address(account)))

    async def get_storage(self, account: Any, position: Any, name: Any = None) -> str:
        """A storage word."""
        return data(self.state_at(name)[1].storage(address(account), slot(position)).to_bytes(32, "big"))

    async def get_proof(self, account: Any, keys: Any, name: Any = None) -> dict[str, Any]:
        """An account and some of its slots, proved by the nodes on the way to them (EIP-1186)."""
        return account_proof(self.state_at(name)[1], address(account), proof_keys(keys))

    # -- calls

    async def call(
        self, arguments: Any, name: Any = None, state_overrides: Any = None, block_overrides: Any = None
    ) -> str:
        """Run a message on a block's state."""
        block, state = self.state_at(name)
        header = as_if(block.header, block_overrides)
        with _call_errors():
            result = call(self.client.spec, header, state, **self._message(block, arguments, state_overrides))
        if result.error is not None:
            raise revert_error(result.error, result.revert_data)
        return data(result.output)

    async def estimate_gas(
        self, arguments: Any, name: Any = None, state_overrides: Any = None, block_overrides: Any = None
    ) -> str:
        """The gas limit with which a message succeeds."""
        block, state = self.state_at(name)
        with _call_errors():
            message = self._message(block, arguments, state_overrides)
            gas = estimate_gas(self.client.spec, as_if(block.header, block_overrides), state, **message)
        return quantity(gas)

    async def create_access_list(self, arguments: Any, name: Any = None, state_overrides: Any = None) -> dict[str, Any]:
        """What a message touches, as an EIP-2930 access list, and what the message costs with it."""
        block, state = self.state_at(name)
        with _call_errors():
            message = self._message(block, arguments, state_overrides)
            made = create_access_list(self.client.spec, block.header, state, **message)
        answer = {"accessList": access_list_json(made.access_list), "gasUsed": quantity(made.gas_used)}
        return answer if made.error is None else {**answer, "error": made.error}

    def _message(self, block: ChainBlock, arguments: Any, state_overrides: Any) -> dict[str, Any]:
        """What a caller wants to run, within bounds of gas and time: calls must not hold up a flashblock."""
        read = call_arguments(arguments)
        if "gas" in read:
            read["gas"] = min(read["gas"], GAS_CAP_DEFAULT)
        return {
            **read,
            "overrides": overrides(state_overrides),
            "block_hashes": self.chain.ancestor_hashes(block.hash),
            "deadline": time.monotonic() + CALL_S_MAX,
            "clock": time.monotonic,
        }

    # -- fees

    async def gas_price(self) -> str:
        """Next base fee and suggested tip together, in wei."""
        return quantity(self._tip() + next_base_fee(self.client.spec, self.chain.head.header))

    async def max_priority_fee(self) -> str:
        """The suggested tip, in wei."""
        return quantity(self._tip())

    def _tip(self) -> int:
        return suggested_tip(list(self._last_blocks(self.chain.head, TIP_BLOCKS)))

    def _last_blocks(self, newest: ChainBlock, count: int) -> Iterator[ChainBlock]:
        block: ChainBlock | None = newest
        for _ in range(count):
            if block is None:
                return
            yield block
            block = self.chain.block(block.header.parent_hash)

    async def fee_history(self, count: Any, newest: Any, percentiles: Any = None) -> Any:
        """Base fees, fullness and tips of consecutive blocks."""
        wanted = min(to_int(count, "block count"), FEE_HISTORY_BLOCKS_MAX)
        block = self.find(block_name(newest))
        if block is None:
            raise RpcError(SERVER_ERROR, "request beyond head block")
        read = read_percentiles(percentiles)
        if wanted == 0:
            return {"oldestBlock": "0x0", "gasUsedRatio": None}
        blocks = [each async for each in _in_slices(self._last_blocks(block, wanted))]
        return fee_history(self.client.spec, blocks[::-1], read)

    # -- logs

    async def get_logs(self, wanted: Any) -> list[Any]:
        """Events of a range of blocks, or of one block by its hash."""
        chosen = log_filter(wanted)
        found: list[Any] = []
        async for block in _in_slices(self._blocks_for(chosen)):
            if not chosen.may_match(block.header.logs_bloom):
                continue
            for index, log_index, receipt, log in numbered_logs(block.receipts):
                if chosen.matches(log):
                    found.append(
                        log_json(
                            log,
                            block_hash=block.hash,
                            number=block.number,
                            timestamp=block.header.timestamp,
                            tx_hash=receipt.tx_hash,
                            index=index,
                            log_index=log_index,
                        )
                    )
            if len(found) > LOGS_ANSWERED_MAX:
                raise RpcError(LIMIT_EXCEEDED, f"query returned more than {LOGS_ANSWERED_MAX} results")
        return found

    def _blocks_for(self, chosen: LogFilter) -> Iterator[ChainBlock]:
        if chosen.block_hash is not None:
            block = self.chain.block(chosen.block_hash)
            if block is None:
                raise RpcError(SERVER_ERROR, "unknown block")
            yield block
            return
        first, last = self._number_of(chosen.from_block), self._number_of(chosen.to_block)
        if first > last:
            raise RpcError(INVALID_PARAMS, "invalid block range params")
        if last - first >= LOG_BLOCKS_MAX:
            raise RpcError(LIMIT_EXCEEDED, f"block range too large: at most {LOG_BLOCKS_MAX} blocks")
        for number in range(first, min(last, self.chain.head.number) + 1):
            block = self.chain.by_number(number)
            if block is not None:
                yield block

    def _number_of(self, name: BlockName) -> int:
        if name.number is not None:
            return name.number
        block = self.find(name)
        if block is None:
            raise RpcError(SERVER_ERROR, "unknown block")
        return block.number

    # -- sending, pool, debugging, miner

    async def send_raw_transaction(self, raw: Any) -> str:
        """Put a transaction into the pool; geth's texts when it is refused."""
        try:
            return data(await self.client.submit(to_bytes(raw, None, "transaction")))
        except InvalidTransaction as error:
            raise RpcError(SERVER_ERROR, str(error)) from error

    async def pool_status(self) -> dict[str, str]:
        """How many transactions are executable, how many wait for a nonce."""
        counts = self.client.pool.counts()
        return {"pending": quantity(counts.pending), "queued": quantity(counts.queued)}

    async def pool_content(self) -> dict[str, Any]:
        """Everything in the pool by sender and nonce."""
        pool = self.client.pool
        content: dict[str, dict[str, Any]] = {"pending": {}, "queued": {}}
        for sender in {tx.sender for tx in pool.transactions()}:
            for kind, listed in self._content_of(sender).items():
                if listed:
                    content[kind][data(sender)] = listed
        return content

    async def pool_content_from(self, account: Any) -> dict[str, Any]:
        """One sender's part of the pool."""
        return self._content_of(address(account))

    async def pool_inspect(self) -> dict[str, Any]:
        """Everything in the pool as one line each, in geth's words."""
        content = await self.pool_content()
        return {
            kind: {sender: {nonce: _in_words(tx) for nonce, tx in listed.items()} for sender, listed in senders.items()}
            for kind, senders in content.items()
        }

    def _content_of(self, sender: bytes) -> dict[str, dict[str, Any]]:
        pool = self.client.pool
        reachable = pool.next_nonce(sender, pool.head.state.nonce(sender))
        content: dict[str, dict[str, Any]] = {"pending": {}, "queued": {}}
        for tx in pool.queue(sender):
            content["pending" if tx.nonce < reachable else "queued"][str(tx.nonce)] = transaction_json(tx)
        return content

    async def raw_block(self, name: Any) -> Any:
        """A block's RLP; an error for an unknown one, as in geth."""
        return data(self._required(name).block().rlp())

    async def raw_header(self, name: Any) -> Any:
        """A header's RLP."""
        return data(self._required(name).header.rlp())

    async def raw_receipts(self, name: Any) -> Any:
        """The consensus encodings of a block's receipts."""
        return [data(receipt.consensus_rlp()) for receipt in self._required(name).receipts]

    def _required(self, name: Any) -> ChainBlock:
        block = self.find(block_name(name, LATEST))
        if block is None:
            raise RpcError(SERVER_ERROR, "block not found")
        return block

    async def set_max_da_size(self, transaction: Any, block: Any) -> bool:
        """Bound the estimated DA size per transaction and per block, in bytes; 0 takes a bound away."""
        self.client.max_da_size = (to_int(transaction, "maxTxSize"), to_int(block, "maxBlockSize"))
        return True

    async def set_gas_limit(self, gas: Any) -> bool:
        """Fill blocks only up to this much gas; the header keeps the attributes' limit."""
        self.client.gas_limit_override = to_int(gas, "gas limit") or None
        return True

    async def status(self) -> dict[str, Any]:
        """What `flashblocks status` shows."""
        return self.client.status()


@contextmanager
def _call_errors() -> Iterator[None]:
    """What a message that cannot run, takes too long or fails at any gas is answered with."""
    try:
        yield
    except InvalidTransaction as error:
        raise RpcError(SERVER_ERROR, str(error)) from error
    except OutOfTime as error:
        raise RpcError(SERVER_ERROR, CALL_TIMED_OUT) from error
    except CallReverted as error:
        raise revert_error(str(error), error.revert_data) from error


def _transaction_at(block: ChainBlock, index: int) -> dict[str, Any]:
    return transaction_json(
        block.transactions[index],
        block.receipts[index],
        block_hash=block.hash,
        number=block.number,
        index=index,
        base_fee=block.header.base_fee_per_gas,
    )


def _in_words(tx: dict[str, Any]) -> str:
    price, gas, value = (int(tx[name], 16) for name in ("gasPrice", "gas", "value"))
    return f"{tx['to'] or 'contract creation'}: {value} wei + {gas} gas × {price} wei"


def _constant(value: Any) -> Callable[[], Awaitable[Any]]:
    async def answer() -> Any:
        return value

    return answer


async def _accept(*_: Any) -> bool:
    return True


async def _in_slices(blocks: Iterator[ChainBlock]) -> Any:
    """The blocks, with a turn for everybody else on the loop after every few milliseconds."""
    paused = time.perf_counter()
    for block in blocks:
        yield block
        if time.perf_counter() - paused > SLICE_S:
            await asyncio.sleep(0)
            paused = time.perf_counter()
