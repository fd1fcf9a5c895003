"""``eth_sendBundle``: one transaction with conditions on block, flashblock and time, and protection against reverting.

The rules and limits are op-rbuilder's.  Bundles live apart from the pool: they are candidates for their blocks only,
and one that could not land is dropped when its last block has passed.
"""

from collections.abc import Mapping
from typing import Any

import msgspec

from flashblocks.builder.offers import Candidate, candidate_of
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.transaction import Transaction, decode_transaction
from flashblocks.wire.hexadecimal import WireError, to_bytes, to_int
from flashblocks.wire.jsonrpc import INVALID_PARAMS, RpcError

BLOCK_RANGE_BLOCKS_MAX = 10
BUNDLES_MAX = 4_096
DROPPED_REMEMBERED_MAX = 4_096
FIELDS = (
    "txs",
    "revertingTxHashes",
    "minBlockNumber",
    "maxBlockNumber",
    "minFlashblockNumber",
    "maxFlashblockNumber",
    "minTimestamp",
    "maxTimestamp",
)


class Bundle(msgspec.Struct, frozen=True):
    """A checked bundle; block and flashblock ranges are inclusive and independent, timestamps are seconds."""

    transaction: Transaction
    revert_protected: bool
    block_max: int
    block_min: int = 0
    index_min: int = 0
    index_max: int | None = None
    timestamp_min: int = 0
    timestamp_max: int | None = None

    def fits(self, number: int, timestamp: int) -> bool:
        """Say whether it may land in the block of this number and time."""
        in_time = timestamp >= self.timestamp_min and (self.timestamp_max is None or timestamp <= self.timestamp_max)
        return in_time and self.block_min <= number <= self.block_max


def read_bundle(obj: Any, head_number: int) -> Bundle:
    """Read and check the parameter of eth_sendBundle; raises RpcError (invalid params) with the reason."""
    if not isinstance(obj, Mapping):
        raise _invalid("expected an object")
    unknown = set(obj) - set(FIELDS)
    if unknown:
        raise _invalid(f"unknown field `{min(unknown)}`")
    transaction = _only_transaction(obj.get("txs"))
    block_min, block_max = _quantity(obj, "minBlockNumber"), _quantity(obj, "maxBlockNumber")
    latest_max = head_number + BLOCK_RANGE_BLOCKS_MAX
    if block_max is None:
        block_max = latest_max
    if block_max <= head_number:
        raise _invalid(f"block_number_max ({block_max}) is a past block (current: {head_number})")
    if block_max > latest_max:
        raise _invalid(f"block_number_max ({block_max}) is too high (max allowed: {latest_max})")
    _check_range("block_number", block_min, block_max)
    index_min, index_max = _quantity(obj, "minFlashblockNumber"), _quantity(obj, "maxFlashblockNumber")
    _check_range("flashblock_number", index_min, index_max)
    time_min, time_max = _plain(obj, "minTimestamp"), _plain(obj, "maxTimestamp")
    _check_range("timestamp", time_min, time_max)
    return Bundle(
        transaction=transaction,
        revert_protected=transaction.hash not in _hashes(obj.get("revertingTxHashes")),
        block_max=block_max,
        block_min=block_min or 0,
        index_min=index_min or 0,
        index_max=index_max,
        timestamp_min=time_min or 0,
        timestamp_max=time_max,
    )


class BundlePool:
    """The bundles that may still land, in the order in which they came."""

    def __init__(self) -> None:
        self._bundles: dict[bytes, tuple[int, Bundle]] = {}
        self._dropped: dict[bytes, None] = {}
        self._arrivals = 0

    def __len__(self) -> int:
        return len(self._bundles)

    @property
    def revision(self) -> int:
        """Grows with every bundle that comes."""
        return self._arrivals

    def add(self, bundle: Bundle) -> bytes:
        """Take a bundle in (the same transaction again replaces it) and return its hash: that of its transaction."""
        if len(self._bundles) >= BUNDLES_MAX and bundle.transaction.hash not in self._bundles:
            raise RpcError(INVALID_PARAMS, f"bundle pool is full ({BUNDLES_MAX})")
        self._arrivals += 1
        self._bundles[bundle.transaction.hash] = (self._arrivals, bundle)
        self._dropped.pop(bundle.transaction.hash, None)
        return bundle.transaction.hash

    def candidates(self, number: int, timestamp: int, base_fee: int) -> list[Candidate]:
        """The bundles that may land in this block and pay its base fee (wei)."""
        found = [
            candidate_of(
                bundle.transaction,
                base_fee,
                arrival=arrival,
                bundle=(bundle.index_min, bundle.index_max, bundle.revert_protected),
            )
            for arrival, bundle in self._bundles.values()
            if bundle.fits(number, timestamp)
        ]
        return [candidate for candidate in found if candidate.tip >= 0]

    def landed(self, transaction_hash: bytes) -> None:
        """Forget a bundle whose transaction is in a block."""
        self._bundles.pop(transaction_hash, None)

    def drop(self, transaction_hash: bytes) -> None:
        """Drop a bundle that cannot land, and remember that it was dropped."""
        if self._bundles.pop(transaction_hash, None) is not None:
            self._dropped[transaction_hash] = None
            while len(self._dropped) > DROPPED_REMEMBERED_MAX:
                del self._dropped[next(iter(self._dropped))]

    def expire(self, head_number: int) -> list[bytes]:
        """Drop what cannot land after this head any more; returns the hashes."""
        old = [key for key, (_, bundle) in self._bundles.items() if bundle.block_max <= head_number]
        for key in old:
            self.drop(key)
        return old

    def was_dropped(self, transaction_hash: bytes) -> bool:
        """Say whether a bundle with this transaction was dropped (its receipt will never come)."""
        return transaction_hash in self._dropped


def _only_transaction(transactions: Any) -> Transaction:
    if not isinstance(transactions, list) or len(transactions) != 1:
        raise _invalid("bundle must contain exactly one transaction")
    try:
        transaction = decode_transaction(to_bytes(transactions[0], None, "txs"))
        if transaction.is_deposit:
            raise InvalidTransaction("transaction type not supported")
        _ = transaction.sender
    except (WireError, InvalidTransaction) as error:
        raise _invalid(str(error)) from None
    return transaction


def _hashes(values: Any) -> set[bytes]:
    if values is None:
        return set()
    if not isinstance(values, list):
        raise _invalid("revertingTxHashes: expected an array")
    try:
        return {to_bytes(value, 32, "revertingTxHashes") for value in values}
    except WireError as error:
        raise _invalid(str(error)) from None


def _quantity(obj: Mapping[str, Any], name: str) -> int | None:
    value = obj.get(name)
    if value is None:
        return None
    try:
        return to_int(value, name)
    except WireError as error:
        raise _invalid(str(error)) from None


def _plain(obj: Mapping[str, Any], name: str) -> int | None:
    value = obj.get(name)
    if value is not None and (isinstance(value, bool) or not isinstance(value, int) or value < 0):
        raise _invalid(f"{name}: expected a number of seconds")
    return value


def _check_range(name: str, low: int | None, high: int | None) -> None:
    if low is not None and high is not None and low > high:
        raise _invalid(f"{name}_min ({low}) is greater than {name}_max ({high})")


def _invalid(reason: str) -> RpcError:
    return RpcError(INVALID_PARAMS, f"invalid bundle: {reason}")
