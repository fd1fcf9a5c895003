"""Random histories of seen, committed, false and repeated flashblocks: what is kept is always a true prefix."""

import random
from functools import lru_cache

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from flashblocks.execution.follow import PayloadFollower
from flashblocks.wire.flashblock import Flashblock
from tests.execution.forge import Forge

FORGE = Forge()
LENGTH = 5


@lru_cache(maxsize=1)
def streams() -> list[list[Flashblock]]:
    """Three continuations of the same opening under one payload id; the second leaves the first after index 2."""
    common = [[FORGE.transfer(0, 0)], [FORGE.transfer(0, 1)]]
    tails = [
        [[FORGE.transfer(1, 0)], [FORGE.transfer(1, 1)]],
        [[FORGE.transfer(2, 0)], []],
    ]
    made = [FORGE.flashblocks(FORGE.block.header, FORGE.state, [*common, *tail]) for tail in tails]
    other = [[FORGE.transfer(3, nonce)] for nonce in range(LENGTH - 1)]
    made.append(FORGE.flashblocks(FORGE.block.header, FORGE.state, other))
    return made


streams()  # the EVM raises the recursion limit when it is first used, and Hypothesis wants it left alone


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 2**32))
def test_what_is_kept_is_a_true_prefix_and_what_is_committed_stays(seed: int) -> None:
    rng = random.Random(seed)
    follower = PayloadFollower(FORGE.chain())
    payload_id = streams()[0][0].payload_id
    ledger = rng.choice(streams())  # what a majority holds, in order
    committed = 0
    for _ in range(25):
        before = snapshot(follower, payload_id)
        if rng.random() < 0.3 and committed < LENGTH:
            verdict = follower.apply(ledger[committed], committed=True)
            if verdict.status in ("VALID", "DUPLICATE"):
                committed += 1
            else:
                assert verdict.status == "GAP" and verdict.expected_index <= committed
        else:
            flashblock = rng.choice(rng.choice(streams()))
            if rng.random() < 0.3:
                flashblock = false(flashblock, rng)
            verdict = follower.apply(flashblock)
        if verdict.status not in ("VALID", "DUPLICATE"):
            assert snapshot(follower, payload_id) == before, "a refusal changes nothing"
        followed = follower.open(payload_id)
        if followed is None:
            continue
        for index, step in enumerate(followed.steps):
            assert step.flashblock.index == index
            assert step.sealed.header.hash == step.flashblock.diff.block_hash
            assert step.sealed.state.root == step.flashblock.diff.state_root
        kept = followed.flashblocks()[:committed]
        assert kept == ledger[: len(kept)] and len(kept) == committed
        assert followed.committed_index == committed - 1
        total = sum(len(each.diff.transactions) for each in followed.flashblocks())
        assert followed.working().transaction_count == total


def snapshot(follower: PayloadFollower, payload_id: bytes) -> list[bytes]:
    followed = follower.open(payload_id)
    return [] if followed is None else [each.diff.block_hash for each in followed.flashblocks()]


def false(flashblock: Flashblock, rng: random.Random) -> Flashblock:
    diff = flashblock.diff
    changes = [
        {"gas_used": diff.gas_used + 1},
        {"state_root": bytes(32)},
        {"block_hash": bytes(32)},
        {"transactions": (*diff.transactions, FORGE.transfer(5, 7))},
        {"transactions": diff.transactions[1:]},
    ]
    fields = rng.choice(changes if diff.transactions else changes[:4])
    return msgspec.structs.replace(flashblock, diff=msgspec.structs.replace(diff, **fields))
