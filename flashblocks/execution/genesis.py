"""The first block: a genesis file in the format of op-geth and op-reth, and the state it describes."""

from collections.abc import Sequence
from typing import Any

from flashblocks.execution import trie
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.chain_spec import DEFAULT_EIP1559_ELASTICITY, ChainSpec
from flashblocks.execution.code import Code
from flashblocks.execution.fees import (
    BASE_FEE_VAULT,
    L1_BLOCK,
    L1_FEE_VAULT,
    MESSAGE_PASSER,
    OPERATOR_FEE_VAULT,
    SEQUENCER_FEE_VAULT,
    encode_extra_data,
)
from flashblocks.execution.header import EMPTY_REQUESTS_HASH, Block, Header
from flashblocks.execution.keccak import hashed_address, hashed_slot
from flashblocks.execution.predeploys import l1_block_code, message_passer_code
from flashblocks.execution.state import Account, WorldState
from flashblocks.execution.system_calls import BEACON_ROOTS_ADDRESS, BEACON_ROOTS_CODE, HISTORY_ADDRESS, HISTORY_CODE

DEFAULT_CHAIN_ID = 901
DEFAULT_GAS_LIMIT = 140_000_000
DEFAULT_TIMESTAMP_S = 1_735_689_600
DEFAULT_BASE_FEE_WEI = 1_000_000
FUNDED_BY_DEFAULT = tuple([funded.address for funded in TEST_ACCOUNTS])
FUNDED_BALANCE_WEI = 10_000 * 10**18

_BLOCK_FORKS = (
    "homestead", "eip150", "eip155", "eip158", "byzantium", "constantinople", "petersburg", "istanbul", "muirGlacier",
    "berlin", "london", "arrowGlacier", "grayGlacier", "mergeNetsplit", "bedrock",
)  # fmt: skip
_TIME_FORKS = (
    "regolith", "shanghai", "canyon", "cancun", "ecotone", "fjord", "granite", "holocene", "prague", "isthmus",
)  # fmt: skip


def default_genesis(
    chain_id: int = DEFAULT_CHAIN_ID,
    timestamp: int = DEFAULT_TIMESTAMP_S,
    gas_limit: int = DEFAULT_GAS_LIMIT,
    funded: Sequence[bytes] = FUNDED_BY_DEFAULT,
    *,
    jovian_time: int | None = None,
    min_base_fee: int = 0,
) -> dict[str, Any]:
    """A genesis file for a chain of our own: Isthmus from the start, Jovian from `jovian_time` (seconds) on.

    Every `funded` address has 10,000 ether. The predeploys that the protocol needs are installed.
    """
    config: dict[str, Any] = {"chainId": chain_id}
    config.update({f"{fork}Block": 0 for fork in _BLOCK_FORKS})
    config.update({"terminalTotalDifficulty": 0, "terminalTotalDifficultyPassed": True})
    config.update({f"{fork}Time": 0 for fork in _TIME_FORKS})
    if jovian_time is not None:
        config["jovianTime"] = jovian_time
    config["optimism"] = {
        "eip1559Elasticity": DEFAULT_EIP1559_ELASTICITY,
        "eip1559Denominator": 50,
        "eip1559DenominatorCanyon": 250,
    }
    spec = ChainSpec(chain_id=chain_id, isthmus_time=0, jovian_time=jovian_time)
    jovian = spec.is_jovian(timestamp)
    return {
        "config": config,
        "nonce": "0x0",
        "timestamp": hex(timestamp),
        "extraData": "0x" + encode_extra_data(spec, timestamp, bytes(8), min_base_fee if jovian else None).hex(),
        "gasLimit": hex(gas_limit),
        "difficulty": "0x0",
        "mixHash": "0x" + bytes(32).hex(),
        "coinbase": "0x" + SEQUENCER_FEE_VAULT.hex(),
        "alloc": _alloc(funded),
        "number": "0x0",
        "gasUsed": "0x0",
        "parentHash": "0x" + bytes(32).hex(),
        "baseFeePerGas": hex(DEFAULT_BASE_FEE_WEI),
        "excessBlobGas": "0x0",
        "blobGasUsed": "0x0",
    }


def _alloc(funded: Sequence[bytes]) -> dict[str, dict[str, Any]]:
    alloc: dict[str, dict[str, Any]] = {}
    for address in funded:
        alloc["0x" + address.hex()] = {"balance": hex(FUNDED_BALANCE_WEI)}
    contracts = {
        L1_BLOCK: l1_block_code(),
        MESSAGE_PASSER: message_passer_code(),
        BEACON_ROOTS_ADDRESS: BEACON_ROOTS_CODE,
        HISTORY_ADDRESS: HISTORY_CODE,
    }
    for address, code in contracts.items():
        alloc["0x" + address.hex()] = {"balance": "0x0", "nonce": "0x1", "code": "0x" + code.hex()}
    # Nonce 1 keeps the vaults from being empty accounts (EIP-161) before their first fee.
    for address in (SEQUENCER_FEE_VAULT, BASE_FEE_VAULT, L1_FEE_VAULT, OPERATOR_FEE_VAULT):
        alloc["0x" + address.hex()] = {"balance": "0x0", "nonce": "0x1"}
    return alloc


def load_genesis(genesis: dict[str, Any]) -> tuple[ChainSpec, Block, WorldState]:
    """The chain's rules, its block 0 and the state after it, from a genesis file (op-geth's or ours).

    Raises ValueError or KeyError for a file that is not one.
    """
    spec = ChainSpec.from_genesis(genesis)
    accounts = {hashed_address(_data(address)): _account(entry) for address, entry in genesis["alloc"].items()}
    state = WorldState().with_accounts(accounts)
    timestamp = _number(genesis.get("timestamp", 0))
    isthmus = spec.is_isthmus(timestamp)
    header = Header(
        parent_hash=_data(genesis.get("parentHash", "0x" + bytes(32).hex())),
        fee_recipient=_data(genesis.get("coinbase", "0x" + bytes(20).hex())),
        state_root=state.root,
        number=_number(genesis.get("number", 0)),
        gas_limit=_number(genesis["gasLimit"]),
        gas_used=_number(genesis.get("gasUsed", 0)),
        timestamp=timestamp,
        extra_data=_data(genesis.get("extraData", "0x")),
        prev_randao=_data(genesis.get("mixHash", "0x" + bytes(32).hex())),
        nonce=_number(genesis.get("nonce", 0)).to_bytes(8, "big"),
        difficulty=_number(genesis.get("difficulty", 0)),
        base_fee_per_gas=_number(genesis.get("baseFeePerGas", 1_000_000_000)),
        withdrawals_root=state.storage_root(MESSAGE_PASSER) if isthmus else trie.EMPTY_ROOT,
        blob_gas_used=_number(genesis.get("blobGasUsed") or 0),
        excess_blob_gas=_number(genesis.get("excessBlobGas") or 0),
        requests_hash=EMPTY_REQUESTS_HASH if isthmus else None,
    )
    return spec, Block(header, ()), state


def _account(entry: dict[str, Any]) -> Account:
    slots = {
        hashed_slot(int.from_bytes(_data(slot), "big")): int.from_bytes(_data(value), "big")
        for slot, value in entry.get("storage", {}).items()
    }
    code = Code.of(_data(entry.get("code", "0x")))
    return Account(
        _number(entry.get("nonce", 0)), _number(entry.get("balance", 0)), code, trie.update(None, dict(slots))
    )


def _data(text: str) -> bytes:
    digits = text.removeprefix("0x")
    return bytes.fromhex(digits if len(digits) % 2 == 0 else "0" + digits)


def _number(value: int | str) -> int:
    return int(value, 0) if isinstance(value, str) else value
