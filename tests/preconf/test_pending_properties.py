"""The pending state machine under any delivery: what is shown is true, once and in order."""

from hypothesis import given, settings
from hypothesis import strategies as st

from flashblocks.preconf.facts import Arrival, Resend
from tests.preconf.story import HEAD, Story, block_of


def true_chain(blocks: int, indices: int) -> list[Arrival]:
    chain: list[Arrival] = []
    parent = HEAD.hash
    for number in range(101, 101 + blocks):
        chain += block_of(indices, number, parent)
        parent = chain[-1].block_hash
    return chain


@given(
    blocks=st.integers(1, 4),
    indices=st.integers(1, 5),
    disorder=st.lists(st.tuples(st.integers(0, 19), st.sampled_from(["deliver", "answer", "wait"])), max_size=60),
)
@settings(max_examples=300, deadline=None)
def test_any_delivery_of_a_true_stream_is_shown_once_and_in_order(
    blocks: int, indices: int, disorder: list[tuple[int, str]]
) -> None:
    """Loss, copies and any order: what is shown is each flashblock at most once, in order; and in the end all of it."""
    chain = true_chain(blocks, indices)
    story = Story()
    for position, what in disorder:
        if what == "deliver":
            story.stream(chain[position % len(chain)])
        elif what == "wait":
            story.wait(0.05)
        else:
            asked = [decision for decision in story.log if isinstance(decision, Resend)]
            if asked:
                story.stream(*[a for a in chain if (a.number, a.index) >= (asked[-1].number, asked[-1].index)])
        assert story.appended == sorted(set(story.appended))
    story.stream(*chain)
    assert story.appended == [(arrival.number, arrival.index) for arrival in chain]
    assert not story.invalidated
    assert story.machine.view(story.now).source == "flashblocks"


@given(cut=st.integers(0, 9), sealed_first=st.booleans(), drop=st.sets(st.integers(0, 9)))
@settings(max_examples=200, deadline=None)
def test_the_sealed_block_is_reported_exactly_when_it_breaks_a_promise(
    cut: int, sealed_first: bool, drop: set[int]
) -> None:
    """A divergence is counted if and only if the shown transactions are not a prefix of the sealed ones."""
    story = Story()
    flashblocks = block_of(10)
    if not sealed_first:
        story.stream(*flashblocks[: cut + 1])
    sealed = sum((f.transactions for f in flashblocks if f.index not in drop), ())
    story.seal_elsewhere(101, HEAD.hash, sealed, "sealed")
    shown = sum((f.transactions for f in flashblocks[: cut + 1]), ()) if not sealed_first else ()
    kept = shown == sealed[: len(shown)]
    assert [gone.divergent for gone in story.invalidated] == ([] if kept else [True])
    if not kept:
        assert set(story.invalidated[0].lost) == set(shown) - set(sealed)
