"""What a new user does first, with web3.py and nothing of ours: send, be preconfirmed, check the sealed block.

    python tests/clients/first_transaction.py http://127.0.0.1:8545

Prints one JSON object; exit status 0 only when every check held.
"""

from __future__ import annotations

import json
import statistics
import sys
import time
from typing import Any

from web3 import Web3
from web3.types import TxReceipt

TRANSFERS = 20
POLL_S = 0.02
RECEIPT_S_MAX = 20.0
SEALED_S_MAX = 20.0
MNEMONIC_KEY = "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80"  # anvil's first account

# A token of 247 bytes, assembled by hand: transfer, balanceOf, totalSupply, decimals; the deployer owns all of it.
TOKEN = (
    "0x6c0c9f2c9cd04674edea40000000335f5260405f20556100d46100235f396100d45ff35f3560e01c8063a9059cbb1461003557806370a0"
    "82311461009b57806318160ddd146100b1578063313ce567146100c5575b5f5ffd5b50602435335f5260405f208054828110610031578290"
    "03905560043560601b60601c5f5260405f208054820190555f5260043560601b60601c337fddf252ad1be2c89b69c2b068fc378daa952ba7"
    "f163c4a11628f55a4df523b3ef60205fa360016100cd565b5060043560601b60601c5f5260405f20546100cd565b506c0c9f2c9cd04674ed"
    "ea400000006100cd565b5060126100cd565b5f5260205ff3"
)
TOKEN_ABI: list[dict[str, Any]] = [
    {
        "type": "function",
        "name": "transfer",
        "stateMutability": "nonpayable",
        "inputs": [{"name": "to", "type": "address"}, {"name": "amount", "type": "uint256"}],
        "outputs": [{"name": "", "type": "bool"}],
    },
    {
        "type": "function",
        "name": "balanceOf",
        "stateMutability": "view",
        "inputs": [{"name": "owner", "type": "address"}],
        "outputs": [{"name": "", "type": "uint256"}],
    },
    {
        "type": "event",
        "name": "Transfer",
        "anonymous": False,
        "inputs": [
            {"name": "from", "type": "address", "indexed": True},
            {"name": "to", "type": "address", "indexed": True},
            {"name": "amount", "type": "uint256", "indexed": False},
        ],
    },
]


class Walk:
    """One wallet on one RPC address."""

    def __init__(self, url: str, key: str = MNEMONIC_KEY) -> None:
        self.web3 = Web3(Web3.HTTPProvider(url))
        self.account = self.web3.eth.account.from_key(key)
        self.sent: list[tuple[str, int, int]] = []  # hash, preconfirmed block number, index

    def send(self, transaction: dict[str, Any]) -> tuple[TxReceipt, float]:
        """Fill in, sign, send, wait; the receipt, and the seconds from sending to having it."""
        eth = self.web3.eth
        nonce = eth.get_transaction_count(self.account.address, "pending")
        filled = {
            "from": self.account.address,
            "chainId": eth.chain_id,
            "nonce": nonce,
            "type": 2,
            "maxPriorityFeePerGas": eth.max_priority_fee,
            "maxFeePerGas": 2 * eth.gas_price,
            **transaction,
        }
        filled.setdefault("gas", eth.estimate_gas(filled))
        signed = self.account.sign_transaction(filled)
        began = time.perf_counter()
        tx_hash = eth.send_raw_transaction(signed.raw_transaction)
        receipt = eth.wait_for_transaction_receipt(tx_hash, timeout=RECEIPT_S_MAX, poll_latency=POLL_S)
        took = time.perf_counter() - began
        assert receipt["status"] == 1, receipt
        assert eth.get_transaction_count(self.account.address, "pending") == nonce + 1, (
            "the pending nonce agrees at once"
        )
        self.sent.append((tx_hash.to_0x_hex(), receipt["blockNumber"], receipt["transactionIndex"]))
        return receipt, took

    def transfers(self, count: int) -> list[float]:
        """Send ether to a new account and look at its pending balance each time."""
        to = self.web3.eth.account.create().address
        seconds = []
        for turn in range(1, count + 1):
            _, took = self.send({"to": to, "value": 10**15})
            assert self.web3.eth.get_balance(to, "pending") == turn * 10**15, "the pending balance agrees at once"
            seconds.append(took)
        return seconds

    def token(self) -> tuple[str, float]:
        """Deploy a token, transfer some of it, and read it on `pending`; its address and the deployment's seconds."""
        receipt, took = self.send({"data": TOKEN})
        address = receipt["contractAddress"]
        assert address is not None
        assert len(self.web3.eth.get_code(address, "pending")) > 200
        contract = self.web3.eth.contract(address=address, abi=TOKEN_ABI)
        to = self.web3.eth.account.create().address
        call = contract.functions.transfer(to, 123)
        receipt, _ = self.send({"to": address, "data": call._encode_transaction_data()})
        (event,) = contract.events.Transfer().process_receipt(receipt)
        assert (event["args"]["to"], event["args"]["amount"]) == (to, 123)
        assert contract.functions.balanceOf(to).call(block_identifier="pending") == 123
        return address, took

    def check_sealed(self) -> int:
        """Every preconfirmed transaction is in the sealed block of its number, at its index; how many blocks."""
        numbers = sorted({number for _, number, _ in self.sent})
        deadline = time.monotonic() + SEALED_S_MAX
        while self.web3.eth.block_number < numbers[-1]:
            assert time.monotonic() < deadline, f"block {numbers[-1]} is not sealed"
            time.sleep(POLL_S)
        for number in numbers:
            block = self.web3.eth.get_block(number)
            hashes = [tx_hash.to_0x_hex() for tx_hash in block["transactions"]]
            for tx_hash, shown_number, index in self.sent:
                if shown_number == number:
                    assert hashes[index] == tx_hash, f"{tx_hash} was preconfirmed as {number}/{index}"
                    receipt = self.web3.eth.get_transaction_receipt(tx_hash)
                    assert (receipt["blockHash"], receipt["transactionIndex"]) == (block["hash"], index)
        return len(numbers)


def first_transactions(url: str, count: int = TRANSFERS) -> dict[str, Any]:
    """The whole walk; raises AssertionError for the first thing that is not as promised."""
    walk = Walk(url)
    assert walk.web3.is_connected()
    walk.transfers(1)  # the connection and the first execution are warm from here on
    seconds = walk.transfers(count)
    token, deployed = walk.token()
    blocks = walk.check_sealed()
    return {
        "chain_id": walk.web3.eth.chain_id,
        "transfers": count,
        "send_to_receipt_ms": {
            "median": round(statistics.median(seconds) * 1000, 1),
            "max": round(max(seconds) * 1000, 1),
        },
        "token": token,
        "token_deployed_ms": round(deployed * 1000, 1),
        "sealed_blocks": blocks,
    }


if __name__ == "__main__":
    print(json.dumps(first_transactions(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8545")))
