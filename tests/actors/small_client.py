"""Small execution clients on real sockets, as an ingress sees one: the product's own pool, sealed blocks by number."""

import asyncio
import time
from collections.abc import Sequence
from typing import Any

import structlog
from eth_account import Account

from actors.handover_link import HandoverPort
from actors.pool_intake import PoolIntake
from actors.rpc_server import RpcServer
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.pool import TransactionPool
from flashblocks.execution.pool_rules import PoolHead, decode_for_pool
from flashblocks.execution.transaction import Transaction, recover_sender
from flashblocks.ingress import handover
from flashblocks.wire.hexadecimal import data, quantity, to_bytes
from flashblocks.wire.jsonrpc import RpcError

LOG = structlog.get_logger()
KEY = TEST_ACCOUNTS[0].private_key


def raw(nonce: int = 0, **changes: Any) -> str:
    fields = {
        "chainId": 901,
        "nonce": nonce,
        "gas": 21_000,
        "maxFeePerGas": 10**9,
        "maxPriorityFeePerGas": 1_000,
        "to": "0x" + "22" * 20,
        "value": 5,
        "type": 2,
    } | changes
    return data(bytes(Account.sign_transaction(fields, KEY).raw_transaction))


class SmallClient:
    """An execution client as the ingress sees one: a pool, accounts at the genesis block, sealed blocks by number."""

    def __init__(self, port: int = 0, *, linked: bool = True, secret: bytes | None = None) -> None:
        self.spec, self.genesis, self.state = load_genesis(default_genesis())
        self.pool = TransactionPool(self.spec, PoolHead.of(self.spec, self.genesis.header, self.state))
        self.recovered = 0
        intake = PoolIntake(self.pool, self.recover, lambda tx_hash: None, believes=secret is not None)
        self.blocks: list[list[str]] = [[]]
        self.server = RpcServer(
            "127.0.0.1",
            port,
            {
                "eth_chainId": self.chain_id,
                "eth_getBlockByNumber": self.block,
                "eth_getTransactionCount": self.nonce,
                "eth_getBalance": self.balance,
                "eth_sendRawTransaction": self.send,
            },
            name="small client",
            log=LOG,
            links={handover.PATH: HandoverPort(intake.take, secret)} if linked else {},
        )

    async def recover(self, transactions: Sequence[Transaction]) -> None:
        self.recovered += len(transactions)
        for transaction in transactions:
            recover_sender(transaction)

    async def chain_id(self) -> str:
        return quantity(self.spec.chain_id)

    async def block(self, tag: str, full: bool) -> dict[str, Any] | None:
        number = len(self.blocks) - 1 if tag == "latest" else int(tag, 16)
        header = self.genesis.header
        return {
            "number": quantity(number),
            "gasLimit": quantity(header.gas_limit),
            "baseFeePerGas": quantity(header.base_fee_per_gas),
            "transactions": self.blocks[number],
        }

    async def nonce(self, address: str, tag: str) -> str:
        return quantity(self.state.nonce(to_bytes(address)))

    async def balance(self, address: str, tag: str) -> str:
        return quantity(self.state.balance(to_bytes(address)))

    async def send(self, encoded: str) -> str:
        try:
            transaction = decode_for_pool(to_bytes(encoded))
            self.pool.add(transaction, time.monotonic())
        except InvalidTransaction as error:
            raise RpcError(-32000, str(error)) from None
        return data(transaction.hash)


async def until(condition: Any, what: str) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 – facts of a real process, there is no event
            await asyncio.sleep(0.01)
    assert condition(), what
