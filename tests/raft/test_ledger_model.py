"""The ledger against an independent model: random commands of several would-be leaders, checked after every one.

The model knows nothing of the ledger's structures. It keeps the promises as plain facts – the highest claim, what was
ever accepted at (number, index), which blocks were sealed – and says for each command whether to accept it is right.
"""

from hashlib import sha256

from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from raft.ledger import (
    Accepted,
    Append,
    Appended,
    Claim,
    Ledger,
    Seal,
    SealBlock,
    Sealed,
    SnapshotError,
    decode_command,
    encode_command,
)

GENESIS = b"\x00" * 32
NODES = st.sampled_from(["a", "b", "c"])
EPOCHS = st.integers(0, 6)
# A small space on purpose: collisions are where equivocation would happen.
PAYLOADS = st.sampled_from([b"payload1", b"payload2"])
BODIES = st.sampled_from([b"body 1", b"body 2"])


def at_most_one(*mistakes: str) -> st.SearchStrategy:
    """Mostly right commands, so that states grow; each kind of mistake alone, so that no other rule hides it."""
    return st.none() | st.none() | st.sampled_from(mistakes)


FENCE_MISTAKES = ("an epoch too old", "an epoch too new", "another node")
NUMBER_MISTAKES = {"a number too low": 0, "a number too high": 2, "a number far too low": -3}


def hash_of(*parts: object) -> bytes:
    return sha256(repr(parts).encode()).digest()


class LedgerAgainstModel(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.ledger = Ledger(0, GENESIS)
        self.log = []
        self.claims = {0: ""}
        self.committed = {}
        self.meta = {}
        self.chain = [GENESIS]
        self.claim(1, "a", False)

    # What the model knows.

    def leads(self, epoch: int, node: str) -> bool:
        return epoch == max(self.claims) and epoch > 0 and self.claims[epoch] == node

    def flashblocks(self, number: int) -> list:
        return [self.committed[key] for key in sorted(self.committed) if key[0] == number]

    @property
    def height(self) -> int:
        return len(self.chain) - 1

    def apply(self, command, right: bool, new: bool) -> tuple:
        """Apply through the codec; the answer must be what the model says."""
        before = self.ledger.snapshot()
        answer, events = self.ledger.apply(decode_command(encode_command(command)))
        self.log.append(command)
        assert isinstance(answer, Accepted) == right, (command, answer)
        if right:
            assert answer.duplicate != new
        assert bool(events) == (right and new)
        assert (self.ledger.snapshot() == before) != (right and new)
        return events

    @rule(epoch=EPOCHS, node=NODES, follow=st.booleans())
    def claim_somehow(self, epoch: int, node: str, follow: bool) -> None:
        self.claim(epoch, node, follow)

    def claim(self, epoch: int, node: str, follow: bool) -> None:
        newest = max(self.claims)
        epoch = newest + 1 if follow and newest < 40 else epoch
        again = epoch == newest and epoch > 0 and self.claims[newest] == node
        self.apply(Claim(epoch, node), right=epoch > newest or again, new=epoch > newest)
        if epoch > newest:
            self.claims[epoch] = node

    def author(self, mistake: str | None) -> tuple[int, str]:
        """Epoch and node of a command: the current ones, or mistaken ones."""
        newest = max(self.claims)
        owner = self.claims[newest]
        if mistake == "an epoch too old":
            return newest - 1, self.claims.get(newest - 1, owner)
        if mistake == "an epoch too new":
            return newest + 1, owner
        if mistake == "another node":
            return newest, "d"
        return newest, owner

    def height_of(self, mistake: str | None) -> int:
        return max(0, self.height + NUMBER_MISTAKES.get(mistake or "", 1))

    def parent_of(self, number: int, mistake: str | None) -> bytes:
        if mistake == "another parent" or not 0 < number <= self.height + 1:
            return hash_of("elsewhere")
        return self.chain[number - 1]

    @rule(
        mistake=at_most_one(
            *FENCE_MISTAKES, *NUMBER_MISTAKES, "an index skipped", "an index again", "another payload", "another parent"
        ),
        payload=PAYLOADS,
        body=BODIES,
    )
    def append(self, *, mistake, payload, body) -> None:
        epoch, node = self.author(mistake)
        number = self.height_of(mistake)
        present = self.flashblocks(number)
        if present:
            payload = self.meta[number] if mistake != "another payload" else b"payload9"
        index = len(present) + {"an index skipped": 1, "an index again": -1}.get(mistake, 0)
        index = max(index, 0)
        parent_hash = self.parent_of(number, mistake)
        block_hash = hash_of(number, payload, index, body)
        command = Append(epoch, node, payload, number, index, parent_hash, block_hash, sha256(body).digest(), body)
        known = self.committed.get((number, index))
        is_open = number == self.height + 1
        extends = is_open and index == len(present) and parent_hash == self.chain[-1]
        new = known is None and extends and (not present or self.meta[number] == payload)
        again = known == (block_hash, body) and self.meta[number] == payload
        # An open block's repetitions name its parent too; a sealed block's are recognised by their content.
        again = again and (not is_open or parent_hash == self.chain[-1])
        right = self.leads(epoch, node) and (new or again)
        events = self.apply(command, right, new)
        if right and new:
            self.committed[number, index] = (block_hash, body)
            self.meta[number] = payload
            assert [type(event) for event in events] == [Appended]

    @rule(
        mistake=at_most_one(
            *FENCE_MISTAKES,
            *NUMBER_MISTAKES,
            "an index too low",
            "an index too high",
            "another payload",
            "another hash",
        )
    )
    def seal(self, *, mistake) -> None:
        epoch, node = self.author(mistake)
        number = self.height_of(mistake)
        present = self.flashblocks(number)
        shift = {"an index too low": -1, "an index too high": 1}.get(mistake, 0)
        last_index = max(0, len(present) - 1 + shift)
        block_hash = hash_of("other") if mistake == "another hash" or not present else present[-1][0]
        payload = self.meta.get(number, b"payload1") if mistake != "another payload" else b"payload9"
        command = Seal(epoch, node, number, payload, last_index, block_hash)
        fits = bool(present) and last_index == len(present) - 1 and payload == self.meta[number]
        again = 0 < number <= self.height and self.chain[number] == block_hash
        new = number == self.height + 1 and fits and block_hash == present[-1][0]
        right = self.leads(epoch, node) and (new or again)
        events = self.apply(command, right, new)
        if right and new:
            self.chain.append(block_hash)
            assert [type(event) for event in events] == [Sealed]

    @rule(mistake=at_most_one(*FENCE_MISTAKES, *NUMBER_MISTAKES, "another parent"), body=BODIES)
    def seal_block(self, *, mistake, body) -> None:
        epoch, node = self.author(mistake)
        number = self.height_of(mistake)
        parent_hash = self.parent_of(number, mistake)
        block_hash = hash_of("fallback", number, body)
        new = number == self.height + 1 and parent_hash == self.chain[-1] and not self.flashblocks(number)
        again = 0 < number <= self.height and self.chain[number] == block_hash
        right = self.leads(epoch, node) and (new or again)
        self.apply(SealBlock(epoch, node, number, parent_hash, block_hash, body), right, new)
        if right and new:
            self.chain.append(block_hash)

    @rule()
    def restart_from_snapshot(self) -> None:
        restored = Ledger(0, GENESIS)
        restored.restore(self.ledger.snapshot())
        assert restored.snapshot() == self.ledger.snapshot()
        self.ledger = restored

    @rule()
    def restart_from_log(self) -> None:
        replayed = Ledger(0, GENESIS)
        for command in self.log:
            replayed.apply(command)
        assert replayed.snapshot() == self.ledger.snapshot()

    @invariant()
    def the_ledger_says_what_the_model_knows(self) -> None:
        if not hasattr(self, "ledger"):
            return
        self.ledger.check()
        epoch = max(self.claims)
        assert (self.ledger.epoch, self.ledger.owner) == (epoch, self.claims[epoch])
        assert self.ledger.head == (self.height, self.chain[-1])
        present = self.flashblocks(self.height + 1)
        entries = self.ledger.open.entries if self.ledger.open is not None else ()
        assert [(entry.block_hash, entry.body) for entry in entries] == present
        for block in self.ledger.sealed_since(0) or ():
            assert block.block_hash == self.chain[block.number]
            assert [(entry.block_hash, entry.body) for entry in block.entries] == self.flashblocks(block.number)


LedgerAgainstModel.TestCase.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)
TestLedgerAgainstModel = LedgerAgainstModel.TestCase


@given(st.binary(max_size=64))
def test_a_ledger_never_takes_random_bytes_for_a_snapshot_it_cannot_repeat(data):
    ledger = Ledger(0, GENESIS)
    try:
        ledger.restore(data)
    except SnapshotError:
        assert ledger.snapshot() == Ledger(0, GENESIS).snapshot()
    else:
        ledger.check()
