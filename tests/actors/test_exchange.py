"""A Uniswap-V2-like exchange, used as wallets use it: deployed, funded and traded on over eth RPC with web3.py.

Every block it makes is executed again by the two oracles, stock py-evm and the specification (EELS).
"""

import asyncio
import contextlib
import math
from collections.abc import Coroutine
from pathlib import Path
from typing import Any

import pytest
from web3 import Web3
from web3.exceptions import ContractLogicError, TransactionNotFound, Web3Exception
from web3.logs import DISCARD

from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.chain import Chain
from flashblocks.execution.fees import decode_extra_data
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.signing import sign_transaction
from flashblocks.execution.stock import StockBlock
from flashblocks.wire.engine import PayloadAttributes
from tests.actors.execution_driver import Driver, running
from tests.execution import vyper_contracts as contracts
from tests.execution.eels_chain import EelsChain
from tests.execution.forge import Forge
from tests.execution.rules.test_stock import nodes_of

FORGE = Forge()
ALICE, BOB = 0, 1
SUPPLY = 10**24
NEVER = 2**64
BLOCKS_MAX = 10


class Exchange:
    """Wallets and contracts on one execution client, in a thread of its own as web3.py's HTTP provider blocks."""

    def __init__(self, url: str, driver: Driver, loop: asyncio.AbstractEventLoop) -> None:
        self.w3 = Web3(Web3.HTTPProvider(url))
        self.driver, self.loop = driver, loop
        self.nonces = [0] * 10
        self.gas = 3_000_000

    def _wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(30)

    def make_block(self) -> None:
        self._wait(self.driver.make_block())

    def send(self, account: int, to: str | None, data: bytes) -> Any:
        raw = sign_transaction(
            TEST_ACCOUNTS[account].private_key,
            chain_id=901,
            nonce=self.nonces[account],
            to=None if to is None else bytes.fromhex(to[2:]),
            data=data,
            gas_limit=self.gas,
            max_fee_per_gas=10**10,
            max_priority_fee_per_gas=10**6,
        )
        self.nonces[account] += 1
        return self.w3.eth.send_raw_transaction(raw)

    def receipts(self, *hashes: Any) -> list[Any]:
        """Of transactions sent before; makes the block, or more on a busy machine: a block has a bounded time."""
        for _ in range(BLOCKS_MAX):
            self.make_block()
            with contextlib.suppress(TransactionNotFound):
                return [self.w3.eth.get_transaction_receipt(tx_hash) for tx_hash in hashes]
        raise AssertionError(f"not in {BLOCKS_MAX} blocks")

    def deploy(self, *initcodes: bytes) -> list[str]:
        found = self.receipts(*[self.send(ALICE, None, initcode) for initcode in initcodes])
        assert all(receipt["status"] == 1 for receipt in found)
        return [receipt["contractAddress"] for receipt in found]

    def at(self, name: str, address: str) -> Any:
        return self.w3.eth.contract(address=Web3.to_checksum_address(address), abi=contracts.compiled(name)["abi"])

    def call(self, account: int, contract: Any, function: str, *arguments: Any) -> Any:
        return self.send(account, contract.address, bytes.fromhex(contract.encode_abi(function, args=arguments)[2:]))


def amount_out(amount: int, reserve_in: int, reserve_out: int) -> int:
    return amount * 997 * reserve_out // (reserve_in * 1000 + amount * 997)


def address_of(account: int) -> str:
    return Web3.to_checksum_address(TEST_ACCOUNTS[account].address)


def trade(exchange: Exchange) -> None:
    """The whole story; asserts on the way."""
    *tokens, blueprint = exchange.deploy(
        *[contracts.deployment("token", f"Token {name}", name, SUPPLY) for name in "ABC"], contracts.blueprint("pair")
    )
    a, b, c = (exchange.at("token", token) for token in tokens)
    (factory_address,) = exchange.deploy(contracts.deployment("factory", Web3.to_checksum_address(blueprint)))
    (router_address,) = exchange.deploy(contracts.deployment("router", Web3.to_checksum_address(factory_address)))
    factory, router = exchange.at("factory", factory_address), exchange.at("router", router_address)
    assert (a.functions.name().call(), b.functions.symbol().call(), c.functions.decimals().call()) == (
        "Token A",
        "B",
        18,
    )

    exchange.receipts(
        *[exchange.call(ALICE, token, "approve", router.address, 2**256 - 1) for token in (a, b, c)],
        exchange.call(ALICE, a, "transfer", address_of(BOB), 10**21),
        exchange.call(BOB, a, "approve", router.address, 10**21),
    )
    assert a.functions.allowance(address_of(ALICE), router.address).call() == 2**256 - 1

    added = exchange.receipts(
        exchange.call(
            ALICE, router, "addLiquidity", a.address, b.address, 10**20, 4 * 10**20, address_of(ALICE), NEVER
        ),
        exchange.call(ALICE, router, "addLiquidity", c.address, b.address, 10**20, 10**20, address_of(ALICE), NEVER),
        exchange.call(ALICE, router, "addLiquidity", a.address, b.address, 10**18, 10**20, address_of(ALICE), NEVER),
    )
    assert [receipt["status"] for receipt in added] == [1, 1, 1]
    created = factory.events.PairCreated().process_receipt(added[0], errors=DISCARD)[0]["args"]
    first = exchange.at("pair", created["pair"])
    assert first.address == factory.functions.getPair(b.address, a.address).call()
    assert (created["token0"], created["token1"]) == tuple(sorted((a.address, b.address), key=str.lower))
    assert factory.functions.allPairsLength().call() == 2
    shares = math.isqrt(10**20 * 4 * 10**20)
    third = 10**18 * shares // 10**20  # keeps the pool's ratio, whatever more is offered
    assert first.functions.totalSupply().call() == shares + third
    assert first.functions.balanceOf(address_of(ALICE)).call() == shares + third - 1000

    reserves = reserves_of(first, a.address)
    assert reserves == (101 * 10**18, 404 * 10**18)
    swap(exchange, router, (a, b, c), first)
    leave(exchange, first, a)


def swap(exchange: Exchange, router: Any, tokens: tuple[Any, Any, Any], first: Any) -> None:
    """Bob trades A for C over B; then twice in ways that are refused."""
    a, _, c = tokens
    path = [token.address for token in tokens]
    to_b = amount_out(10**19, *reserves_of(first, a.address))
    to_c = amount_out(to_b, 10**20, 10**20)
    assert router.functions.getAmountsOut(10**19, path).call() == [10**19, to_b, to_c]
    arguments = (10**19, to_c, path, address_of(BOB), NEVER)
    wanted = router.functions.swapExactTokensForTokens(*arguments)
    gas = wanted.estimate_gas({"from": address_of(BOB)})
    assert wanted.call({"from": address_of(BOB), "gas": gas}) == [10**19, to_b, to_c]
    with pytest.raises(Web3Exception):
        wanted.call({"from": address_of(BOB), "gas": gas * 19 // 20})
    ok, greedy, late = exchange.receipts(
        exchange.call(BOB, router, "swapExactTokensForTokens", *arguments),
        exchange.call(BOB, router, "swapExactTokensForTokens", 10**19, to_c, path, address_of(BOB), NEVER),
        exchange.call(BOB, router, "swapExactTokensForTokens", 10**19, 0, path, address_of(BOB), 1),
    )
    assert (ok["status"], greedy["status"], late["status"]) == (1, 0, 0)
    assert c.functions.balanceOf(address_of(BOB)).call() == to_c
    assert reserves_of(first, a.address) == (111 * 10**18, 404 * 10**18 - to_b)
    swaps = first.events.Swap().process_receipt(ok, errors=DISCARD)
    assert [(s["args"]["amount0In"] + s["args"]["amount1In"]) for s in swaps] == [10**19, to_b]
    assert [(s["args"]["amount0Out"] + s["args"]["amount1Out"]) for s in swaps] == [to_b, to_c]
    assert swaps[1]["args"]["to"] == address_of(BOB)
    syncs = exchange.w3.eth.get_logs(
        {
            "fromBlock": ok["blockNumber"],
            "toBlock": "latest",
            "address": first.address,
            "topics": [_topic("Sync(uint112,uint112)")],
        }
    )
    sync = first.events.Sync().process_log(syncs[0])["args"]
    assert len(syncs) == 1 and sorted(sync.values()) == sorted(reserves_of(first, a.address))
    with pytest.raises(ContractLogicError, match="output too low"):
        router.functions.swapExactTokensForTokens(*arguments).call({"from": address_of(BOB)})
    with pytest.raises(ContractLogicError, match="expired"):
        router.functions.swapExactTokensForTokens(1, 0, path, address_of(BOB), 1).call({"from": address_of(BOB)})
    with pytest.raises(ContractLogicError, match="nothing in"):
        first.functions.swap(1, 1, address_of(BOB)).call({"from": address_of(BOB)})


def leave(exchange: Exchange, first: Any, a: Any) -> None:
    """Alice takes half of her liquidity back."""
    half = first.functions.balanceOf(address_of(ALICE)).call() // 2
    supply = first.functions.totalSupply().call()
    reserves = reserves_of(first, a.address)
    sent, burnt = exchange.receipts(
        exchange.call(ALICE, first, "transfer", first.address, half),
        exchange.call(ALICE, first, "burn", address_of(ALICE)),
    )
    assert (sent["status"], burnt["status"]) == (1, 1)
    out = tuple(half * reserve // supply for reserve in reserves)
    burn = first.events.Burn().process_receipt(burnt, errors=DISCARD)[0]["args"]
    assert sorted((burn["amount0"], burn["amount1"])) == sorted(out)
    assert reserves_of(first, a.address) == tuple(r - o for r, o in zip(reserves, out, strict=True))


def reserves_of(pair: Any, first_token: str) -> tuple[int, int]:
    """The reserves of `first_token` and of the other."""
    zero, one, _ = pair.functions.getReserves().call()
    return (zero, one) if pair.functions.token0().call() == first_token else (one, zero)


def _topic(signature: str) -> str:
    return "0x" + keccak256(signature.encode()).hex()


async def test_an_exchange_is_deployed_funded_and_traded_on(tmp_path: Path) -> None:
    async with running(tmp_path, FORGE) as (component, driver):
        exchange = Exchange(component.client.rpc_server.url, driver, asyncio.get_running_loop())
        await asyncio.to_thread(trade, exchange)
        chain = component.client.chain
        assert chain.head.number >= 7
        await asyncio.to_thread(same_on_the_oracles, chain)


def same_on_the_oracles(chain: Chain) -> None:
    """Every block again on stock py-evm, by hash, and on EELS, by gas, logs and state root."""
    eels = EelsChain(FORGE.genesis, FORGE.block.header)
    for number in range(1, chain.head.number + 1):
        parent, block = chain.by_number(number - 1), chain.by_number(number)
        assert parent is not None and parent.state is not None and block is not None
        header = block.header
        denominator, elasticity, _ = decode_extra_data(chain.spec, header)
        attributes = PayloadAttributes(
            timestamp=header.timestamp,
            prev_randao=header.prev_randao,
            fee_recipient=header.fee_recipient,
            parent_beacon_block_root=header.parent_beacon_root,
            gas_limit=header.gas_limit,
            eip1559_params=denominator.to_bytes(4, "big") + elasticity.to_bytes(4, "big"),
        )
        stock = StockBlock(chain.spec, parent.header, nodes_of(parent.state), attributes)
        for tx in block.transactions:
            stock.append(tx.raw)
        assert stock.seal().hash == block.hash
        found, root = eels.apply(block.block())
        paid = [receipt for receipt in block.receipts if receipt.type != 0x7E]
        assert found == [
            (
                bool(receipt.status),
                receipt.gas_used,
                [[log.address, list(log.topics), log.data] for log in receipt.logs],
            )
            for receipt in paid
        ]
        assert root == header.state_root
