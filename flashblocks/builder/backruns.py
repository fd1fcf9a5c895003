"""``eth_sendBackrunBundle``: a transaction that shall land immediately behind another one, which the pool has already.

The rules are op-rbuilder's: of those that wait for a target, the best tips are tried right after it; one that pays less
per gas than the target, does not fit or reverts is left out.  Whatever came of it, it is forgotten with its target.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from flashblocks.builder.bundles import BLOCK_RANGE_BLOCKS_MAX
from flashblocks.builder.offers import Candidate, candidate_of
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.transaction import Transaction, decode_transaction
from flashblocks.wire.hexadecimal import WireError, to_bytes, to_int
from flashblocks.wire.jsonrpc import INVALID_PARAMS, RpcError

BACKRUNS_MAX = 4_096
PER_TARGET_MAX = 64
REPLACEMENTS_REMEMBERED_MAX = 4_096


@dataclass(frozen=True, slots=True)
class BackrunRules:
    """How many may be tried and may land, per block and per target."""

    considered_per_block: int = 100
    landed_per_block: int = 100
    considered_per_target: int = 10
    landed_per_target: int = 1


class Replacement(msgspec.Struct, frozen=True):
    """A bundle's name across its versions; the highest nonce is the one that counts."""

    uuid: str
    nonce: int


class Backrun(msgspec.Struct, frozen=True):
    """A checked bundle.  The first index holds in the first block only, the last index in the last block only."""

    target: bytes
    transaction: Transaction
    block_min: int
    block_max: int
    index_min: int = 0
    index_max: int | None = None
    replacement: Replacement | None = None

    def fits(self, number: int, index: int) -> bool:
        """Say whether it may land in this flashblock of the block of this number."""
        if not self.block_min <= number <= self.block_max:
            return False
        if number == self.block_min and index < self.index_min:
            return False
        return self.index_max is None or number != self.block_max or index <= self.index_max


def read_backrun(obj: Any, head_number: int) -> Backrun | Replacement:
    """Read and check the parameter; no transactions cancel what has that name. Raises RpcError (invalid params)."""
    if not isinstance(obj, Mapping):
        raise _invalid("expected an object")
    replacement = _replacement(obj)
    transactions = obj.get("txs")
    if transactions == [] and replacement is not None:
        return replacement
    if not isinstance(transactions, list) or len(transactions) != 2:
        raise _invalid("backrun bundle must contain exactly 2 transactions")
    first = _quantity(obj, "blockNumber")
    if first is None:
        raise _invalid("blockNumber is missing")
    last = _quantity(obj, "maxBlockNumber")
    last = first if last is None else last
    if last < first:
        raise _invalid(f"maxBlockNumber ({last}) must be >= blockNumber ({first})")
    if last - first > BLOCK_RANGE_BLOCKS_MAX:
        raise _invalid(f"block range too large: {first}..{last} (max range: {BLOCK_RANGE_BLOCKS_MAX})")
    if last <= head_number:
        raise _invalid(f"maxBlockNumber ({last}) is in the past (current: {head_number})")
    target, transaction = (_transaction(raw) for raw in transactions)
    return Backrun(
        target=target.hash,
        transaction=transaction,
        block_min=first,
        block_max=last,
        index_min=_quantity(obj, "minFlashblockNumber") or 0,
        index_max=_quantity(obj, "maxFlashblockNumber"),
        replacement=replacement,
    )


class BackrunPool:
    """The backruns that may still land, by their targets."""

    def __init__(self) -> None:
        self._by_target: dict[bytes, dict[bytes, Backrun]] = {}
        self._by_name: dict[str, Backrun | None] = {}
        self._nonces: dict[str, int] = {}
        self._count = 0
        self.revision = 0
        """Grows with every backrun that comes."""
        self._came: dict[bytes, int] = {}  # the revision at which the last one came for a target

    def __len__(self) -> int:
        return self._count

    def add(self, backrun: Backrun) -> bool:
        """Take one in, in the place of what has its name; False for an older version. Raises RpcError when full."""
        name = backrun.replacement
        if name is not None and not self._replace(name):
            return False
        waiting = self._by_target.get(backrun.target, {})
        if backrun.transaction.hash not in waiting:
            if self._count >= BACKRUNS_MAX or len(waiting) >= PER_TARGET_MAX:
                raise RpcError(INVALID_PARAMS, "backrun pool is full")
            self._count += 1
        self._by_target.setdefault(backrun.target, {})[backrun.transaction.hash] = backrun
        self.revision += 1
        self._came[backrun.target] = self.revision
        if name is not None:
            self._by_name[name.uuid] = backrun
        return True

    def cancel(self, name: Replacement) -> bool:
        """Drop what has this name; False for an older version."""
        return self._replace(name)

    def behind(self, target: bytes, number: int, index: int, base_fee: int) -> list[Candidate]:
        """What may land behind this transaction here, the best tip first."""
        waiting = self._by_target.get(target)
        if not waiting:
            return []
        found = [
            candidate_of(one.transaction, base_fee, behind=target)
            for one in waiting.values()
            if one.fits(number, index)
        ]
        return sorted(found, key=lambda candidate: candidate.tip, reverse=True)

    def targets_since(self, revision: int) -> set[bytes]:
        """The targets for which something came after this revision."""
        return {target for target, came in self._came.items() if came > revision}

    def landed(self, transaction_hash: bytes) -> None:
        """A transaction is in a block: nothing can land behind it any more."""
        for backrun in list(self._by_target.get(transaction_hash, {}).values()):
            self._drop(backrun)

    def expire(self, head_number: int) -> None:
        """Drop what cannot land after this head."""
        for waiting in list(self._by_target.values()):
            for backrun in [one for one in waiting.values() if one.block_max <= head_number]:
                self._drop(backrun)

    def _replace(self, name: Replacement) -> bool:
        if name.nonce <= self._nonces.get(name.uuid, -1):
            return False
        self._nonces[name.uuid] = name.nonce
        old = self._by_name.pop(name.uuid, None)
        if old is not None:
            self._drop(old)
        while len(self._nonces) > REPLACEMENTS_REMEMBERED_MAX:
            del self._nonces[next(iter(self._nonces))]
        return True

    def _drop(self, backrun: Backrun) -> None:
        waiting = self._by_target.get(backrun.target, {})
        if waiting.get(backrun.transaction.hash) is not backrun:
            return
        del waiting[backrun.transaction.hash]
        self._count -= 1
        if not waiting:
            del self._by_target[backrun.target]
            self._came.pop(backrun.target, None)
        if backrun.replacement is not None:
            self._by_name.pop(backrun.replacement.uuid, None)


class BackrunsHere:
    """The backruns of one flashblock, with what is left of the block's allowance (`packing.Followers`)."""

    def __init__(
        self, pool: BackrunPool, rules: BackrunRules, number: int, index: int, base_fee: int, tried: int, landed: int
    ) -> None:
        self._pool, self._number, self._index, self._base_fee = pool, number, index, base_fee
        self.considered_left = max(0, rules.considered_per_block - tried)
        self.landed_left = max(0, rules.landed_per_block - landed)
        self.considered_per_target = rules.considered_per_target
        self.landed_per_target = rules.landed_per_target
        self._seen = pool.revision

    def news(self) -> set[bytes]:
        """The targets for which something has come since this was asked last."""
        since, self._seen = self._seen, self._pool.revision
        return self._pool.targets_since(since) if self._seen > since else set()

    def behind(self, target: bytes) -> list[Candidate]:
        """The backruns of this transaction, the best tip first."""
        return self._pool.behind(target, self._number, self._index, self._base_fee)


def _replacement(obj: Mapping[str, Any]) -> Replacement | None:
    uuid, nonce = obj.get("replacementUuid"), obj.get("replacementNonce")
    if uuid is None:
        return None
    if not isinstance(uuid, str) or not uuid:
        raise _invalid("replacementUuid: expected a string")
    if nonce is None:
        raise _invalid("replacementNonce must be set when replacementUuid is set")
    if isinstance(nonce, bool) or not isinstance(nonce, int) or nonce < 0:
        raise _invalid("replacementNonce: expected a number")
    return Replacement(uuid, nonce)


def _transaction(raw: Any) -> Transaction:
    try:
        transaction = decode_transaction(to_bytes(raw, None, "txs"))
        if transaction.is_deposit:
            raise InvalidTransaction("transaction type not supported")
        _ = transaction.sender
    except (WireError, InvalidTransaction) as error:
        raise _invalid(str(error)) from None
    return transaction


def _quantity(obj: Mapping[str, Any], name: str) -> int | None:
    try:
        return None if obj.get(name) is None else to_int(obj[name], name)
    except WireError as error:
        raise _invalid(str(error)) from None


def _invalid(reason: str) -> RpcError:
    return RpcError(INVALID_PARAMS, f"invalid backrun bundle: {reason}")
