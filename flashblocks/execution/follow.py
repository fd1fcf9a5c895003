"""Following a block flashblock by flashblock: each is executed on the state after the one before it, and judged.

The same code is the judge in the fallback execution client, the warm standby in the builder and the pending state in
the rpc-node. A flashblock is valid when executing its transactions gives exactly what it claims: every root, the
bloom, the gas, the block hash, the receipts and the balances. The state after each index is kept, so that a committed
flashblock can replace one that was only seen, and the finished block joins the chain without being executed again.
"""

from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeVar

import msgspec

from flashblocks.execution.chain import Chain, Imported
from flashblocks.execution.claims import Refused, base_of, check_claims, flashblock_from
from flashblocks.execution.errors import ExecutionError, InvalidBlock, InvalidTransaction, OutOfTime
from flashblocks.execution.header import Block, Header
from flashblocks.execution.import_block import check_header
from flashblocks.execution.open_block import OpenBlock, Sealed
from flashblocks.execution.state import WorldState
from flashblocks.execution.transaction import Transaction, decode_transaction
from flashblocks.wire.assembly import attributes_of
from flashblocks.wire.flashblock import Flashblock, FlashblockBase
from flashblocks.wire.hexadecimal import WireError

__all__ = ["FollowedBlock", "Patience", "PayloadFollower", "Step", "Verdict", "flashblock_from"]

FOLLOWED_BLOCKS_MAX = 8
INDEX_MAX = 1_000

VALID, DUPLICATE, INVALID, GAP, UNKNOWN_PARENT = "VALID", "DUPLICATE", "INVALID", "GAP", "UNKNOWN_PARENT"


class Verdict(msgspec.Struct, frozen=True):
    """The judgement on one flashblock.

    VALID: executed, kept. DUPLICATE: the same is already here. INVALID: a claim is false or a transaction cannot run;
    nothing changed. GAP: `expected_index` must come first. UNKNOWN_PARENT: the parent block is not here (yet).
    """

    status: str
    expected_index: int  # the next index of this payload that can be applied
    block_hash: bytes = b""  # of the block so far, as computed here
    error: str | None = None


class Patience(NamedTuple):
    """How long one transaction of an uncommitted flashblock may run: seconds in the time of `clock`."""

    seconds: float
    clock: Callable[[], float]


@dataclass(slots=True, eq=False)
class Step:
    """The block after one more flashblock. `working` stands there and is never changed: fork it to go on."""

    flashblock: Flashblock
    sealed: Sealed
    transactions: tuple[Transaction, ...]  # of this flashblock
    working: OpenBlock | None
    committed: bool = False


@dataclass(slots=True)
class FollowedBlock:
    """A block of which flashblocks 0..last_index are known and executed."""

    payload_id: bytes
    start: Callable[[], OpenBlock]  # the block before index 0
    base: FlashblockBase
    steps: list[Step] = field(default_factory=list)

    @property
    def number(self) -> int:
        """The height of the block."""
        return self.base.block_number

    @property
    def parent_hash(self) -> bytes:
        """The block it is built on."""
        return self.base.parent_hash

    @property
    def last_index(self) -> int:
        """The highest index applied; -1 before index 0."""
        return len(self.steps) - 1

    @property
    def committed_index(self) -> int:
        """The highest index that a majority holds; -1 when none."""
        return max((index for index, step in enumerate(self.steps) if step.committed), default=-1)

    def flashblock(self, index: int) -> Flashblock:
        """Flashblock `index`; raises IndexError beyond the last."""
        return self.steps[index].flashblock

    def sealed(self, index: int = -1) -> Sealed:
        """The valid block of flashblocks 0..index, and the state after it; the last by default."""
        return self.steps[index].sealed

    def flashblocks(self) -> list[Flashblock]:
        """Flashblocks 0..last_index."""
        return [step.flashblock for step in self.steps]

    def transactions(self, index: int | None = None) -> tuple[Transaction, ...]:
        """The decoded transactions of flashblocks 0..index."""
        until = len(self.steps) if index is None else index + 1
        return tuple(tx for step in self.steps[:until] for tx in step.transactions)

    def working(self, index: int | None = None) -> OpenBlock:
        """An open block standing after `index` (the last by default), for the caller to go on with."""
        return self._standing(self.last_index if index is None else index).fork()

    def _standing(self, index: int) -> OpenBlock:
        if index < 0:
            return self.start()
        step = self.steps[index]
        if step.working is None:
            working = self._standing(index - 1).fork()
            for tx in step.transactions:
                working.append(tx)
            working.seal()
            step.working = working
        return step.working


T = TypeVar("T")


def finish(steps: Generator[None, None, T]) -> T:
    """Go through all pauses at once; the result."""
    while True:
        try:
            next(steps)
        except StopIteration as finished:
            result: T = finished.value
            return result


class PayloadFollower:
    """All blocks that are being followed on top of one chain."""

    def __init__(self, chain: Chain) -> None:
        self.chain = chain
        self._followed: dict[bytes, FollowedBlock] = {}

    def open(self, payload_id: bytes) -> FollowedBlock | None:
        """The block followed under this payload id, or None."""
        return self._followed.get(payload_id)

    def blocks(self) -> list[FollowedBlock]:
        """Every block followed at the moment, the most lately begun last."""
        return list(self._followed.values())

    def apply(
        self, flashblock: Flashblock, *, committed: bool = False, decoded: Sequence[Transaction] | None = None
    ) -> Verdict:
        """Execute a flashblock and judge it; on anything but VALID nothing has changed.

        A committed flashblock replaces a different uncommitted one at its index, and what came after that; an
        uncommitted one never replaces a committed one. `decoded` may hold its transactions already decoded.
        """
        return finish(self.apply_steps(flashblock, committed=committed, decoded=decoded))

    def apply_steps(
        self,
        flashblock: Flashblock,
        *,
        committed: bool = False,
        decoded: Sequence[Transaction] | None = None,
        patience: Patience | None = None,
    ) -> Generator[None, None, Verdict]:
        """`apply`, pausing after every transaction so that a caller can do something else in between.

        With `patience`, a transaction that runs longer makes an uncommitted flashblock invalid.
        """
        followed = self._followed.get(flashblock.payload_id)
        last = followed.last_index if followed else -1
        if flashblock.index > last + 1 or flashblock.index > INDEX_MAX:
            return Verdict(GAP, last + 1)
        if followed is not None and flashblock.index <= last:
            known = followed.steps[flashblock.index]
            if known.flashblock == flashblock:
                known.committed = known.committed or committed
                return Verdict(DUPLICATE, last + 1, known.sealed.header.hash)
            if known.committed:
                return Verdict(
                    INVALID, last + 1, b"", f"index {flashblock.index} differs from the committed flashblock"
                )
        try:
            opened = self._begin(flashblock) if flashblock.index == 0 else followed
            if opened is None:
                return Verdict(UNKNOWN_PARENT, 0)
            before = opened.steps[flashblock.index - 1] if flashblock.index else None
            step = yield from self._execute(opened, flashblock, decoded, None if committed else patience)
        except (ExecutionError, WireError) as error:
            return Verdict(INVALID, last + 1, b"", str(error))
        if before is not None and before not in opened.steps:
            return Verdict(GAP, opened.last_index + 1)  # rolled back in one of the pauses
        step.committed = committed
        self._keep(opened, step)
        return Verdict(VALID, step.flashblock.index + 1, step.sealed.header.hash)

    def adopt(
        self,
        payload_id: bytes,
        flashblock: Flashblock,
        sealed: Sealed,
        working: OpenBlock | None = None,
        transactions: Sequence[Transaction] | None = None,
    ) -> FollowedBlock:
        """Take over a flashblock that was built here, without executing it again; it must be the next index.

        `working` is the open block standing after it, which the caller forks before going on; without it the
        transactions are executed again if they are ever needed. Raises UnknownBlock, WireError, ValueError.
        """
        opened = self._begin(flashblock) if flashblock.index == 0 else self._followed.get(payload_id)
        if opened is None or opened.payload_id != payload_id or flashblock.index != opened.last_index + 1:
            raise ValueError(f"flashblock {flashblock.index} does not continue payload 0x{payload_id.hex()}")
        if transactions is None:
            transactions = tuple(decode_transaction(raw) for raw in flashblock.diff.transactions)
        self._keep(opened, Step(flashblock, sealed, tuple(transactions), working))
        return opened

    def take(self, block: Block, decoded: tuple[Transaction, ...] | None = None) -> Imported:
        """Import a whole block, executing only what was not followed. Raises StoreError."""
        return finish(self.take_steps(block, decoded))

    def take_steps(
        self, block: Block, decoded: tuple[Transaction, ...] | None = None
    ) -> Generator[None, None, Imported]:
        """`take`, pausing after every transaction so that a caller can do something else in between."""
        header = block.header
        self.settle(header.parent_hash)
        if self.settle(header.hash):
            return Imported("VALID", header.hash)
        known = self.chain.judged(header)
        if known is not None:
            return known
        try:
            if decoded is None:
                decoded = tuple(decode_transaction(raw) for raw in block.transactions)
            working, done = self._nearest(block)
            for tx in decoded[done:]:
                working.append(tx)
                yield
        except (InvalidTransaction, InvalidBlock):
            return self.chain.import_block(block, decoded)  # finds the same fault and words it
        sealed = working.seal()
        if sealed.header.hash != header.hash:
            return self.chain.import_block(block, decoded)
        self.chain.insert(header, decoded, sealed.receipts, sealed.state)
        return Imported("VALID", header.hash)

    def settle(self, block_hash: bytes) -> bool:
        """Make a followed block part of the chain, if its hash is that of a block so far; whether it is there now.

        Its ancestors, where they too were only followed, come first. Raises StoreError.
        """
        if self.chain.loaded(block_hash) is not None:
            return True
        found = self._find(block_hash)
        if found is None:
            return False
        followed, index = found
        if not self.settle(followed.parent_hash):
            return False
        sealed = followed.sealed(index)
        self.chain.insert(sealed.header, followed.transactions(index), sealed.receipts, sealed.state)
        return True

    def forget_below(self, number: int) -> None:
        """Drop blocks of lower height than `number`: the chain has moved past them."""
        for payload_id in [each.payload_id for each in self._followed.values() if each.number < number]:
            del self._followed[payload_id]

    def parent_of(self, block_hash: bytes) -> tuple[Header, WorldState] | None:
        """Header and state of a block that can be built on: of the chain, or a followed block as it stands."""
        block = self.chain.loaded(block_hash)
        if block is not None:
            return None if block.state is None else (block.header, block.state)
        found = self._find(block_hash)
        if found is None:
            return None
        sealed = found[0].sealed(found[1])
        return sealed.header, sealed.state

    def ancestor_hashes(self, block_hash: bytes) -> Callable[[int], bytes | None]:
        """The function behind BLOCKHASH for a child of this block, whether the chain has it or it is followed."""
        above: dict[int, bytes] = {}
        while self.chain.loaded(block_hash) is None and (found := self._find(block_hash)) is not None:
            above[found[0].number] = block_hash
            block_hash = found[0].parent_hash
        below = self.chain.ancestor_hashes(block_hash)
        return lambda number: above.get(number) or below(number)

    def _find(self, block_hash: bytes) -> tuple[FollowedBlock, int] | None:
        for followed in self._followed.values():
            for index in range(followed.last_index, -1, -1):
                if followed.steps[index].sealed.header.hash == block_hash:
                    return followed, index
        return None

    def _begin(self, flashblock: Flashblock) -> FollowedBlock | None:
        base = flashblock.base
        if base is None:
            raise Refused("index 0 without base")
        parent = self.parent_of(base.parent_hash)
        if parent is None:
            return None
        header, state = parent
        attributes = attributes_of(flashblock)
        hashes = self.ancestor_hashes(base.parent_hash)

        def start() -> OpenBlock:
            return OpenBlock.start(self.chain.spec, header, state, attributes, block_hashes=hashes)

        return FollowedBlock(flashblock.payload_id, start, base)

    def _execute(
        self,
        followed: FollowedBlock,
        flashblock: Flashblock,
        decoded: Sequence[Transaction] | None,
        patience: Patience | None,
    ) -> Generator[None, None, Step]:
        """Run the flashblock after the index before it; raises Refused, InvalidTransaction or InvalidAttributes."""
        if decoded is None:
            decoded = [decode_transaction(raw) for raw in flashblock.diff.transactions]
        working = followed.working(flashblock.index - 1)
        before = working.transaction_count
        for position, tx in enumerate(decoded):
            if tx.is_deposit and flashblock.index > 0:
                raise Refused(f"tx {position}: deposits belong into index 0")
            try:
                if patience is None:
                    working.append(tx)
                else:
                    working.append(tx, deadline=patience.clock() + patience.seconds, clock=patience.clock)
            except (InvalidTransaction, OutOfTime) as error:
                raise Refused(f"could not apply tx {position} [0x{tx.hash.hex()}]: {error}") from error
            yield
        sealed = working.seal()
        balances = working.new_account_balances()
        computed = flashblock_from(flashblock.payload_id, flashblock.index, sealed, balances, before)
        check_claims(flashblock, computed, working.state.get_balance)
        return Step(flashblock, sealed, tuple(decoded), working)

    def _keep(self, followed: FollowedBlock, step: Step) -> None:
        del followed.steps[step.flashblock.index :]
        followed.steps.append(step)
        self._followed.pop(followed.payload_id, None)
        self._followed[followed.payload_id] = followed
        while len(self._followed) > FOLLOWED_BLOCKS_MAX:
            del self._followed[next(iter(self._followed))]

    def _nearest(self, block: Block) -> tuple[OpenBlock, int]:
        """An open block that already holds as much of `block` as was followed, and how many transactions that is."""
        header = block.header
        best: tuple[FollowedBlock, int, int] | None = None
        for followed in self._followed.values():
            if followed.base != base_of(header):
                continue
            count = 0
            for index, step in enumerate(followed.steps):
                following = count + len(step.transactions)
                if block.transactions[count:following] != step.flashblock.diff.transactions:
                    break
                count = following
                if best is None or count >= best[2]:
                    best = followed, index, count
        if best is not None:
            return best[0].working(best[1]), best[2]
        parent = self.chain.loaded(header.parent_hash)
        assert parent is not None and parent.state is not None, "judged before"
        check_header(self.chain.spec, parent.header, header)
        hashes = self.chain.ancestor_hashes(header.parent_hash)
        return OpenBlock.on_header(self.chain.spec, header, parent.state, block_hashes=hashes), 0
