"""One execution client: fallback EL or builder. Its rules are those of `flashblocks.execution`, its EVM is `blocks`.

Followed flashblocks are in memory; blocks and the chosen head are on its disk and outlive its process.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from chaos.simulation.blocks import (
    DEPOSIT_TYPE,
    GENESIS_STATE,
    Block,
    Header,
    InvalidTransaction,
    State,
    envelope_of,
    execute,
    flashblock,
    frame_of,
    header_of,
    header_of_base,
    opened,
    sender_and_nonce,
    transaction_hash,
)
from chaos.simulation.consensus import GENESIS_HASH
from chaos.simulation.kernel import Event, Process
from chaos.simulation.network import CallRefused, CallUnknown, Network
from flashblocks.rollup_boost.facts import Status
from flashblocks.wire.engine import Envelope, PayloadAttributes
from flashblocks.wire.flashblock import Flashblock
from flashblocks.wire.frames import FlashblockFrame
from flashblocks.wire.payload_id import payload_id

TRANSACTIONS_PER_FLASHBLOCK_MAX = 4
TRANSACTIONS_PER_BLOCK_MAX = 6
FOLLOWED_MAX = 8
BUILDS_MAX = 4
BACKFILL_WALK_MAX = 64
BACKFILL_RETRY_S = 0.5
BACKFILL_RETRIES_MAX = 20
PEER_CALL_S_MAX = 0.5

ZERO_HASH = bytes(32)


@dataclass(slots=True)
class ChainDisk:
    """The chain store: every executed block, and the head that forkchoice chose."""

    blocks: dict[bytes, Block] = field(default_factory=dict)
    canonical: dict[int, bytes] = field(default_factory=dict)
    head: bytes = GENESIS_HASH

    def begin(self, genesis_time: int) -> ChainDisk:
        """A chain of nothing but genesis."""
        genesis = Block(0, GENESIS_HASH, ZERO_HASH, genesis_time, GENESIS_STATE, None)
        self.blocks[GENESIS_HASH] = genesis
        self.canonical[0] = GENESIS_HASH
        return self


@dataclass(slots=True)
class Step:
    """A block after one more flashblock."""

    flashblock: Flashblock
    state: State
    committed: bool


@dataclass(slots=True)
class Followed:
    """A block of which flashblocks 0..last are executed."""

    payload_id: bytes
    header: Header
    parent: State
    steps: list[Step] = field(default_factory=list)

    @property
    def state(self) -> State:
        """The state after the last of them."""
        return self.steps[-1].state if self.steps else self.parent

    @property
    def transactions(self) -> int:
        """How many transactions there are so far."""
        return sum(len(step.flashblock.diff.transactions) for step in self.steps)


class Verdict(tuple[Status, int, str]):
    """(status, expected index, error), as the Engine port answers an application."""


class Pool:
    """Transactions that wait, the oldest first."""

    def __init__(self) -> None:
        self._waiting: dict[tuple[int, int], bytes] = {}

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, raw: bytes) -> None:
        """Take one in."""
        self._waiting.setdefault(sender_and_nonce(raw), raw)

    def best(self, state: State, count: int) -> list[bytes]:
        """What fits on that state, in order."""
        chosen: list[bytes] = []
        expected = dict(state.nonces)
        for (sender, nonce), raw in self._waiting.items():
            if len(chosen) == count:
                break
            if expected.get(sender, 0) == nonce:
                expected[sender] = nonce + 1
                chosen.append(raw)
        return chosen

    def prune(self, state: State) -> None:
        """Forget what a block has used."""
        for key in [key for key in self._waiting if key[1] < state.nonces.get(key[0], 0)]:
            del self._waiting[key]


class Client:
    """What the two execution clients share: chain, follower, pool, backfill, and the methods of both ports."""

    def __init__(self, network: Network, process: Process, disk: ChainDisk, peers: list[str]) -> None:
        self.network, self.process, self.disk = network, process, disk
        self.pool = Pool()
        self.followed: dict[bytes, Followed] = {}
        self._peers = peers
        self._target: bytes | None = None
        self._wanted_head: bytes | None = None
        self._wake = Event(process)

    def start(self) -> None:
        """Begin from the disk."""
        self.process.spawn(self._backfill())

    @property
    def head(self) -> Block:
        """The chosen head."""
        return self.disk.blocks[self.disk.head]

    # Hooks for the source of payloads

    def begin_payload(self, identifier: bytes, parent: Block, attributes: PayloadAttributes) -> None:
        """A forkchoice update with attributes."""
        raise NotImplementedError

    def on_applied(self, made: Flashblock) -> None:
        """A flashblock of others was executed."""

    def on_head(self) -> None:
        """The head moved."""

    # Engine API

    def forkchoice(self, head: bytes, attributes: PayloadAttributes | None = None) -> tuple[str, bytes | None]:
        """engine_forkchoiceUpdated: (status, payload id)."""
        if not self.settle(head):
            self._want(head, choose=True)
            return "SYNCING", None
        self.set_head(head)
        if self._target == head:
            self._target = None
        self._wanted_head = None
        if attributes is None:
            return "VALID", None
        if attributes.timestamp <= self.head.timestamp:
            raise CallRefused("Invalid payload attributes")
        name = payload_id(head, attributes)
        self.begin_payload(name, self.head, attributes)
        return "VALID", name

    def new_payload(self, envelope: Envelope) -> str:
        """engine_newPayload: the status."""
        return self.take(envelope)

    def apply_flashblock(self, frame: FlashblockFrame) -> Verdict:
        """Execute and judge one flashblock."""
        made = opened(frame.body)
        verdict = self.apply(made, committed=frame.epoch > 0)
        if verdict[0] in (Status.VALID, Status.DUPLICATE):
            self.on_applied(made)
        elif verdict[0] is Status.UNKNOWN_PARENT and made.base is not None:
            self._want(made.base.parent_hash, choose=False)
        return verdict

    # RPC

    def latest(self) -> Block:
        """eth_getBlockByNumber("latest")."""
        return self.head

    def block(self, name: bytes | int) -> Block:
        """debug_getRawBlock."""
        block_hash = self.disk.canonical.get(name) if isinstance(name, int) else name
        found = self.disk.blocks.get(block_hash) if block_hash is not None else None
        if found is None:
            raise CallRefused("not found")
        return found

    def submit(self, raw: bytes) -> None:
        """eth_sendRawTransaction."""
        sender, nonce = sender_and_nonce(raw)
        if nonce >= self.head.state.nonces.get(sender, 0):
            self.pool.add(raw)

    # The follower: `flashblocks.execution.follow`, verdict by verdict

    def apply(self, made: Flashblock, *, committed: bool) -> Verdict:
        """See `PayloadFollower.apply`."""
        followed = self.followed.get(made.payload_id)
        last = len(followed.steps) - 1 if followed is not None else -1
        if made.index > last + 1:
            return Verdict((Status.GAP, last + 1, ""))
        if followed is not None and made.index <= last:
            known = followed.steps[made.index]
            if known.flashblock == made:
                known.committed = known.committed or committed
                return Verdict((Status.DUPLICATE, last + 1, ""))
            if known.committed:
                return Verdict((Status.INVALID, last + 1, f"index {made.index} differs from the committed flashblock"))
        if made.index == 0:
            assert made.base is not None
            parent = self.state_of(made.base.parent_hash)
            if parent is None:
                return Verdict((Status.UNKNOWN_PARENT, 0, ""))
            followed = Followed(made.payload_id, header_of_base(made.base), parent)
        assert followed is not None
        before = followed.steps[made.index - 1].state if made.index else followed.parent
        try:
            state = execute(before, made.diff.transactions)
        except InvalidTransaction as error:
            return Verdict((Status.INVALID, last + 1, str(error)))
        if (state.root, followed.header.block_hash(state)) != (made.diff.state_root, made.diff.block_hash):
            return Verdict((Status.INVALID, last + 1, "the roots are not as executed"))
        self.keep(followed, Step(made, state, committed))
        return Verdict((Status.VALID, made.index + 1, ""))

    def keep(self, followed: Followed, step: Step) -> None:
        """Put a flashblock at its place; what stood there and after it is gone."""
        del followed.steps[step.flashblock.index :]
        followed.steps.append(step)
        self.followed[followed.payload_id] = followed
        while len(self.followed) > FOLLOWED_MAX:
            del self.followed[next(iter(self.followed))]

    def state_of(self, block_hash: bytes) -> State | None:
        """The state after a block of the chain, or after a followed block as it stands."""
        block = self.disk.blocks.get(block_hash)
        if block is not None:
            return block.state
        found = self._find(block_hash)
        return None if found is None else found[0].steps[found[1]].state

    def _find(self, block_hash: bytes) -> tuple[Followed, int] | None:
        for followed in self.followed.values():
            for index in range(len(followed.steps) - 1, -1, -1):
                if followed.steps[index].flashblock.diff.block_hash == block_hash:
                    return followed, index
        return None

    def settle(self, block_hash: bytes) -> bool:
        """Make a followed block part of the chain, its ancestors first; whether it is there now."""
        if block_hash in self.disk.blocks:
            return True
        found = self._find(block_hash)
        if found is None:
            return False
        followed, index = found
        if not self.settle(followed.header.parent_hash):
            return False
        envelope = envelope_of([step.flashblock for step in followed.steps[: index + 1]])
        self._insert(envelope, followed.steps[index].state)
        return True

    def take(self, envelope: Envelope) -> str:
        """Import a whole block; VALID, INVALID or SYNCING."""
        payload = envelope.payload
        self.settle(payload.parent_hash)
        if self.settle(payload.block_hash):
            return "VALID"
        parent = self.disk.blocks.get(payload.parent_hash)
        if parent is None:
            self._want(payload.parent_hash, choose=False)
            return "SYNCING"
        header = Header(
            payload.block_number,
            payload.parent_hash,
            payload.timestamp,
            payload.prev_randao,
            payload.fee_recipient,
            payload.gas_limit,
            payload.extra_data,
            envelope.parent_beacon_block_root,
        )
        try:
            state = execute(parent.state, payload.transactions)
        except InvalidTransaction:
            return "INVALID"
        if header.block_hash(state) != payload.block_hash:
            return "INVALID"
        self._insert(envelope, state)
        return "VALID"

    def _insert(self, envelope: Envelope, state: State) -> None:
        payload = envelope.payload
        self.disk.blocks[payload.block_hash] = Block(
            payload.block_number, payload.block_hash, payload.parent_hash, payload.timestamp, state, envelope
        )

    def set_head(self, head: bytes) -> None:
        """Make a known block canonical."""
        disk, block = self.disk, self.disk.blocks[head]
        if disk.head == head:
            return
        for number in range(block.number + 1, disk.blocks[disk.head].number + 1):
            disk.canonical.pop(number, None)
        disk.head = head
        step = block
        while disk.canonical.get(step.number) != step.hash:
            disk.canonical[step.number] = step.hash
            step = disk.blocks[step.parent_hash]
        self.pool.prune(block.state)
        for gone in [each.payload_id for each in self.followed.values() if each.header.number < block.number]:
            del self.followed[gone]
        self.on_head()

    # Backfill: `actors.chain_backfill`, without its batches

    def _want(self, block_hash: bytes, *, choose: bool) -> None:
        if choose:
            self._wanted_head = block_hash
        if self._target != block_hash:
            self._target = block_hash
            self._wake.set()

    async def _backfill(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            for _ in range(BACKFILL_RETRIES_MAX):
                if self._target is None or await self._reach(self._target):
                    break
                await self._wake.wait(BACKFILL_RETRY_S)
                self._wake.clear()
            else:
                self._target = None

    async def _reach(self, target: bytes) -> bool:
        peer = self._peers[int(self.process.clock.draw() * len(self._peers))]
        missing: list[Block] = []
        wanted = target
        try:
            while self.state_of(wanted) is None and len(missing) < BACKFILL_WALK_MAX:
                block = await self.network.call(self.process, peer, "block", wanted, timeout_s=PEER_CALL_S_MAX)
                missing.append(block)
                wanted = block.parent_hash
        except (CallRefused, CallUnknown):
            return False
        for block in reversed(missing):
            if block.envelope is None or self.take(block.envelope) != "VALID":
                return False
        if self._target == target:
            self._target = None
            head, self._wanted_head = self._wanted_head, None
            if head is not None and head in self.disk.blocks:
                self.set_head(head)
        return True

    def check(self) -> None:
        """Assert what must hold."""
        assert self.disk.canonical[self.head.number] == self.disk.head


class FallbackEl(Client):
    """Plain payloads: `actors.plain_payloads`."""

    def __init__(self, network: Network, process: Process, disk: ChainDisk, peers: list[str]) -> None:
        super().__init__(network, process, disk, peers)
        self._builds: dict[bytes, tuple[Block, PayloadAttributes]] = {}
        self._finished: dict[bytes, list[Flashblock]] = {}

    def begin_payload(self, identifier: bytes, parent: Block, attributes: PayloadAttributes) -> None:
        """Begin a build, which is filled when it is asked for."""
        if identifier in self._finished:
            return
        self._builds[identifier] = (parent, attributes)
        while len(self._builds) > BUILDS_MAX:
            del self._builds[next(iter(self._builds))]

    def get_payload(self, identifier: bytes) -> Envelope:
        """engine_getPayload."""
        return envelope_of(self._finish(identifier))

    def payload_as_flashblocks(self, identifier: bytes) -> tuple[tuple[FlashblockFrame, Flashblock], ...]:
        """The same payload as one or two flashblocks."""
        made = self._finish(identifier)
        base = made[0].base
        assert base is not None
        frames = [frame_of(one, base.parent_hash) for one in made]
        return tuple((frame, opened(frame.body)) for frame in frames)

    def stand_in(self, identifier: bytes, index: int) -> tuple[FlashblockFrame, Flashblock]:
        """Make the next flashblock in the builder's place: `actors.stand_in`."""
        followed = self.followed.get(identifier)
        expected = 0 if followed is None else len(followed.steps)
        if index != expected:
            raise CallRefused(f"index {index} is not next, {expected} is")
        if followed is None:
            if identifier not in self._builds:
                raise CallRefused("Unknown payload")
            parent, attributes = self._builds[identifier]
            followed = Followed(identifier, header_of(parent.number + 1, parent.hash, attributes), parent.state)
            chosen = list(attributes.transactions)
        else:
            chosen = self.pool.best(followed.state, TRANSACTIONS_PER_BLOCK_MAX)
        state = execute(followed.state, chosen)
        so_far = followed.transactions + len(chosen)
        made = flashblock(followed.header, identifier, index, state, so_far, chosen)
        frame = frame_of(made, followed.header.parent_hash)
        self.keep(followed, Step(opened(frame.body), state, committed=False))
        return frame, opened(frame.body)

    def _finish(self, identifier: bytes) -> list[Flashblock]:
        made = self._finished.get(identifier)
        if made is not None:
            return made
        build = self._builds.pop(identifier, None)
        if build is None:
            raise CallRefused("Unknown payload")
        parent, attributes = build
        header = header_of(parent.number + 1, parent.hash, attributes)
        state = execute(parent.state, attributes.transactions)
        forced = len(attributes.transactions)
        made = [flashblock(header, identifier, 0, state, forced, attributes.transactions)]
        chosen = [] if attributes.no_tx_pool else self.pool.best(state, TRANSACTIONS_PER_BLOCK_MAX)
        if chosen:
            state = execute(state, chosen)
            made.append(flashblock(header, identifier, 1, state, forced + len(chosen), chosen))
        self._finished[identifier] = made
        while len(self._finished) > BUILDS_MAX:
            del self._finished[next(iter(self._finished))]
        return made


def user_hashes(transactions: tuple[bytes, ...]) -> list[bytes]:
    """The hashes of the transactions that are nobody's deposit."""
    return [transaction_hash(raw) for raw in transactions if raw[0] != DEPOSIT_TYPE]
