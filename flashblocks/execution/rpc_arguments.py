"""What callers of Ethereum JSON-RPC pass in, read strictly: block names, call objects, state overrides, log filters."""

from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from flashblocks.execution.calls import AccountOverride
from flashblocks.execution.header import Header
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.proofs import STORAGE_KEYS_MAX
from flashblocks.execution.receipt import Log
from flashblocks.execution.transaction import AccessList, Authorization
from flashblocks.wire.hexadecimal import WireError, to_bytes, to_int

ADDRESSES_PER_FILTER_MAX = 1_000
TOPICS_PER_POSITION_MAX = 1_000
TOPIC_POSITIONS = 4
AUTHORIZATIONS_MAX = 256  # each recovers a signature

TAGS = ("latest", "pending", "safe", "finalized", "earliest")


class BlockName(msgspec.Struct, frozen=True):
    """How a caller names a block: exactly one of the fields is set."""

    tag: str | None = None
    number: int | None = None
    hash: bytes | None = None


LATEST = BlockName("latest")


def block_name(value: Any, default: BlockName = LATEST) -> BlockName:
    """Read a tag, a number, a hash, or EIP-1898's object; None is `default`. Raises WireError."""
    if value is None:
        return default
    if isinstance(value, dict):
        if value.get("blockHash") is not None:
            return BlockName(hash=to_bytes(value["blockHash"], 32, "blockHash"))
        return block_name(value.get("blockNumber"), default)
    if isinstance(value, str) and value in TAGS:
        return BlockName(value)
    if isinstance(value, str) and len(value) == 66:
        return BlockName(hash=to_bytes(value, 32, "block hash"))
    return BlockName(number=to_int(value, "block number"))


def address(value: Any, name: str = "address") -> bytes:
    """Read 20 bytes; raises WireError."""
    return to_bytes(value, 20, name)


def slot(value: Any) -> int:
    """Read a storage position: up to 32 bytes of hex, short forms included. Raises WireError."""
    if not isinstance(value, str) or not value.startswith("0x") or len(value) > 66:
        raise WireError("storage slot: expected up to 32 bytes of hex")
    return int(value[2:] or "0", 16) if _is_hex(value[2:]) else to_int(value, "storage slot")


def proof_keys(value: Any) -> list[tuple[str, int]]:
    """Read eth_getProof's storage keys: each as it is spelled in the answer, and its position. Raises WireError."""
    if not isinstance(value, list):
        raise WireError("storage keys: expected an array")
    if len(value) > STORAGE_KEYS_MAX:
        raise WireError(f"too many storage keys: have {len(value)}, at most {STORAGE_KEYS_MAX}")
    positions = [slot(key) for key in value]
    # geth answers a full word as it came, and anything shorter as a number.
    return [(key.lower() if len(key) == 66 else hex(at), at) for key, at in zip(value, positions, strict=True)]


def _is_hex(digits: str) -> bool:
    return all(digit in "0123456789abcdefABCDEF" for digit in digits)


def call_arguments(value: Any) -> dict[str, Any]:
    """The keyword arguments of `calls.call` in a call object (`from`, `to`, `data` or `input`, …). Raises WireError."""
    if not isinstance(value, dict):
        raise WireError("call: expected an object")
    read: dict[str, Any] = {}
    if value.get("from") is not None:
        read["sender"] = address(value["from"], "from")
    if value.get("to") is not None:
        read["to"] = address(value["to"], "to")
    given = [value[name] for name in ("input", "data") if value.get(name) is not None]
    if len(given) == 2 and given[0] != given[1]:
        raise WireError(
            'both "data" and "input" are set and not equal. Please use "input" to pass transaction call data'
        )
    if given:
        read["data"] = to_bytes(given[0], None, "input")
    if value.get("value") is not None:
        read["value"] = to_int(value["value"], "value")
    if value.get("gas") is not None:
        read["gas"] = to_int(value["gas"], "gas")
    price = value.get("gasPrice") if value.get("gasPrice") is not None else value.get("maxFeePerGas")
    if value.get("gasPrice") is not None and value.get("maxFeePerGas") is not None:
        raise WireError("both gasPrice and (maxFeePerGas or maxPriorityFeePerGas) specified")
    if price is not None:
        read["gas_price"] = to_int(price, "gasPrice")
    if value.get("accessList") is not None:
        read["access_list"] = _access_list(value["accessList"])
    if value.get("authorizationList") is not None:
        read["authorization_list"] = _authorizations(value["authorizationList"])
    return read


def _authorizations(value: Any) -> tuple[Authorization, ...]:
    if not isinstance(value, list) or not all(isinstance(entry, dict) for entry in value):
        raise WireError("authorizationList: expected an array of objects")
    if len(value) > AUTHORIZATIONS_MAX:
        raise WireError(f"authorizationList: at most {AUTHORIZATIONS_MAX} entries")
    return tuple(
        Authorization(
            to_int(entry.get("chainId"), "chainId"),
            address(entry.get("address"), "authorization address"),
            to_int(entry.get("nonce"), "authorization nonce"),
            to_int(entry.get("yParity", entry.get("v")), "yParity"),
            to_int(entry.get("r"), "r"),
            to_int(entry.get("s"), "s"),
        )
        for entry in value
    )


def _access_list(value: Any) -> AccessList:
    if not isinstance(value, list):
        raise WireError("accessList: expected an array")
    entries = []
    for entry in value:
        if not isinstance(entry, dict) or not isinstance(entry.get("storageKeys", []), list):
            raise WireError("accessList: expected objects with address and storageKeys")
        keys = tuple(slot(key) for key in entry.get("storageKeys") or [])
        entries.append((address(entry.get("address"), "accessList address"), keys))
    return tuple(entries)


def overrides(value: Any) -> dict[bytes, AccountOverride] | None:
    """The state override set of eth_call, by address. Raises WireError."""
    if value is None:
        return None
    if not isinstance(value, dict):
        raise WireError("state overrides: expected an object")
    return {address(key, "override address"): _override(entry) for key, entry in value.items()}


def _override(entry: Any) -> AccountOverride:
    if not isinstance(entry, dict):
        raise WireError("state override: expected an object")
    unknown = set(entry) - {"balance", "nonce", "code", "state", "stateDiff"}
    if unknown:
        raise WireError(f"state override: unknown field {sorted(unknown)[0]}")
    if entry.get("state") is not None and entry.get("stateDiff") is not None:
        raise WireError("account has both 'state' and 'stateDiff'")
    return AccountOverride(
        balance=None if entry.get("balance") is None else to_int(entry["balance"], "balance"),
        nonce=None if entry.get("nonce") is None else to_int(entry["nonce"], "nonce"),
        code=None if entry.get("code") is None else to_bytes(entry["code"], None, "code"),
        state=_slots(entry.get("state")),
        state_diff=_slots(entry.get("stateDiff")),
    )


def _slots(value: Any) -> dict[int, int] | None:
    if value is None:
        return None
    if not isinstance(value, dict):
        raise WireError("state override: expected slots by position")
    return {slot(key): slot(word) for key, word in value.items()}


_HEADER_FIELDS: dict[str, tuple[str, Callable[[Any], Any]]] = {
    "number": ("number", to_int),
    "time": ("timestamp", to_int),
    "gasLimit": ("gas_limit", to_int),
    "feeRecipient": ("fee_recipient", address),
    "prevRandao": ("prev_randao", lambda value: to_bytes(value, 32, "prevRandao")),
    "baseFeePerGas": ("base_fee_per_gas", to_int),
}


def header_overrides(value: Any) -> dict[str, Any]:
    """The block overrides of eth_call and eth_simulateV1 as fields of a `Header`; raises WireError."""
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WireError("block overrides: expected an object")
    fields = {}
    for name, given in value.items():
        if name not in _HEADER_FIELDS:
            raise WireError(f"block overrides: {name} is not supported")
        field, read = _HEADER_FIELDS[name]
        fields[field] = read(given)
    return fields


def as_if(header: Header, value: Any) -> Header:
    """A block's header with block overrides in their place; raises WireError."""
    return msgspec.structs.replace(header, **header_overrides(value))


class LogFilter(msgspec.Struct, frozen=True):
    """A filter of eth_getLogs or eth_subscribe("logs"): empty addresses match all, None in topics matches any."""

    from_block: BlockName = LATEST
    to_block: BlockName = LATEST
    block_hash: bytes | None = None
    addresses: frozenset[bytes] = frozenset()
    topics: tuple[frozenset[bytes] | None, ...] = ()

    def matches(self, log: Log) -> bool:
        """Whether the event passes."""
        if self.addresses and log.address not in self.addresses:
            return False
        if len(self.topics) > len(log.topics):
            return False
        return all(wanted is None or topic in wanted for wanted, topic in zip(self.topics, log.topics, strict=False))

    def may_match(self, bloom: bytes) -> bool:
        """Whether a block with this logs bloom can hold an event that passes."""
        bits = int.from_bytes(bloom, "big")
        groups: list[frozenset[bytes] | None] = [self.addresses or None, *self.topics]
        return all(group is None or any(_in_bloom(bits, entry) for entry in group) for group in groups)


def _in_bloom(bits: int, entry: bytes) -> bool:
    h = keccak256(entry)
    wanted = 1 << ((h[0] << 8 | h[1]) & 2047) | 1 << ((h[2] << 8 | h[3]) & 2047) | 1 << ((h[4] << 8 | h[5]) & 2047)
    return bits & wanted == wanted


def log_filter(value: Any) -> LogFilter:
    """Read a filter object; raises WireError."""
    if value is None:
        return LogFilter()
    if not isinstance(value, dict):
        raise WireError("filter: expected an object")
    block_hash = value.get("blockHash")
    if block_hash is not None and (value.get("fromBlock") is not None or value.get("toBlock") is not None):
        raise WireError("cannot specify both BlockHash and FromBlock/ToBlock, choose one or the other")
    return LogFilter(
        block_name(value.get("fromBlock")),
        block_name(value.get("toBlock")),
        None if block_hash is None else to_bytes(block_hash, 32, "blockHash"),
        _addresses(value.get("address")),
        _topics(value.get("topics")),
    )


def _addresses(value: Any) -> frozenset[bytes]:
    if value is None:
        return frozenset()
    listed: Sequence[Any] = value if isinstance(value, list) else [value]
    if len(listed) > ADDRESSES_PER_FILTER_MAX:
        raise WireError(f"filter: at most {ADDRESSES_PER_FILTER_MAX} addresses")
    return frozenset(address(each) for each in listed)


def _topics(value: Any) -> tuple[frozenset[bytes] | None, ...]:
    if value is None:
        return ()
    if not isinstance(value, list) or len(value) > TOPIC_POSITIONS:
        raise WireError("filter: exceed max topics")
    return tuple(_topic_position(position) for position in value)


def _topic_position(position: Any) -> frozenset[bytes] | None:
    if position is None:
        return None
    listed: Sequence[Any] = position if isinstance(position, list) else [position]
    if len(listed) > TOPICS_PER_POSITION_MAX:
        raise WireError(f"filter: at most {TOPICS_PER_POSITION_MAX} topics in one position")
    if not listed or None in listed:
        return None
    return frozenset(to_bytes(each, 32, "topic") for each in listed)
