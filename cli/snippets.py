"""What ``flashblocks up`` prints once the chain runs: addresses, accounts, and snippets that can be pasted."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def introduction(endpoints: Mapping[str, Any]) -> str:
    """Addresses, chain id, the funded accounts with their keys, and three ways to send a first transaction."""
    parts = [addresses(endpoints), accounts(endpoints)]
    if endpoints["rpc"] is not None:
        parts += [curl(endpoints), web3_py(endpoints), viem(endpoints)]
    return "\n\n".join(parts)


def addresses(endpoints: Mapping[str, Any]) -> str:
    """Where everything is."""
    rpc = endpoints["rpc"]
    lines = [
        f"  chain id     {endpoints['chain_id']}",
        f"  RPC          {rpc['http']}  {rpc['ws']}" if rpc else "  RPC          none (--rpc-nodes 0)",
        *(f"  stream       {url}" for url in endpoints["stream"]),
        *(f"  {group['name']:<12} conductor {group['actors']['conductor']['rpc']}" for group in endpoints["groups"]),
        f"  logs         {endpoints['log_dir']}",
    ]
    return "\n".join(["Addresses", *lines])


def accounts(endpoints: Mapping[str, Any]) -> str:
    """The funded accounts; their keys are public and for development only."""
    lines = [f"  {account['address']}  {account['private_key']}" for account in endpoints["accounts"]]
    return "\n".join(["Accounts (10,000 ETH each; these keys are known to everybody: development only)", *lines])


def curl(endpoints: Mapping[str, Any]) -> str:
    """The pending balance of the first account."""
    url, address = endpoints["rpc"]["http"], endpoints["accounts"][0]["address"]
    body = f'{{"jsonrpc":"2.0","id":1,"method":"eth_getBalance","params":["{address}","pending"]}}'
    return f"curl – pending balance\n  curl -s {url} -H 'content-type: application/json' \\\n    -d '{body}'"


def web3_py(endpoints: Mapping[str, Any]) -> str:
    """A transfer whose receipt arrives with the next flashblock."""
    url, first, second = endpoints["rpc"]["http"], endpoints["accounts"][0], endpoints["accounts"][1]
    return f"""web3.py – a transfer, preconfirmed with the next flashblock
  from web3 import Web3
  w3 = Web3(Web3.HTTPProvider("{url}"))
  me = w3.eth.account.from_key("{first["private_key"]}")
  tx = {{"to": "{second["address"]}", "value": 10**18, "gas": 21_000, "chainId": {endpoints["chain_id"]},
        "nonce": w3.eth.get_transaction_count(me.address, "pending"),
        "maxFeePerGas": 10**9, "maxPriorityFeePerGas": 10**6}}
  tx_hash = w3.eth.send_raw_transaction(me.sign_transaction(tx).raw_transaction)
  print(w3.eth.wait_for_transaction_receipt(tx_hash, poll_latency=0.02))"""


def viem(endpoints: Mapping[str, Any]) -> str:
    """The same in TypeScript."""
    url, first, second = endpoints["rpc"]["http"], endpoints["accounts"][0], endpoints["accounts"][1]
    return f"""viem – the same
  import {{ createWalletClient, defineChain, http, parseEther, publicActions }} from 'viem'
  import {{ privateKeyToAccount }} from 'viem/accounts'
  const chain = defineChain({{ id: {endpoints["chain_id"]}, name: 'flashblocks',
    nativeCurrency: {{ name: 'Ether', symbol: 'ETH', decimals: 18 }}, rpcUrls: {{ default: {{ http: ['{url}'] }} }} }})
  const client = createWalletClient({{ chain, transport: http(),
    account: privateKeyToAccount('{first["private_key"]}') }}).extend(publicActions)
  const hash = await client.sendTransaction({{ to: '{second["address"]}', value: parseEther('1') }})
  console.log(await client.waitForTransactionReceipt({{ hash, pollingInterval: 20 }}))"""
