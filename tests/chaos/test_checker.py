"""The checker against hand-made histories: a good one passes, and each broken promise is caught by its own rule."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chaos.checker import (
    DUPLICATE,
    EQUIVOCATION,
    FORK,
    GAP,
    LOST_FLASHBLOCK,
    LOST_TRANSACTION,
    NULL_PENDING,
    PENDING_AGE_S_MAX,
    PENDING_DIVERGES,
    PROMISES,
    REORDERED,
    STALE_EPOCH,
    STALE_PENDING,
    UNANSWERED,
    WITHDRAWN,
    check,
)
from chaos.history import (
    Fault,
    GapAnnounced,
    Invalidated,
    Link,
    PendingRead,
    Preconfirmed,
    Restored,
    SealedBlock,
    Seen,
    Sent,
    read,
    write,
)

BLOCKS, INDICES = 4, 3


def seen(number, index, source="proxy", **changes):
    fields = {
        "at": float(10 * number + index),
        "source": source,
        "number": number,
        "index": index,
        "payload_id": f"id{number}",
        "parent_hash": f"h{number - 1}.{INDICES - 1}" if index == 0 else None,
        "block_hash": f"h{number}.{index}",
        "transactions": (f"t{number}.{index}.0", f"t{number}.{index}.1"),
        "epoch": 1,
    }
    return Seen(**{**fields, **changes})


def sealed(number, source="node", **changes):
    transactions = tuple(f"t{number}.{index}.{k}" for index in range(INDICES) for k in (0, 1))
    fields = {
        "source": source,
        "number": number,
        "block_hash": f"h{number}.{INDICES - 1}",
        "parent_hash": f"h{number - 1}.{INDICES - 1}",
        "transactions": transactions,
    }
    return SealedBlock(**{**fields, **changes})


def good():
    stream = [seen(number, index, source) for number in range(1, BLOCKS) for index in range(INDICES) for source in "ab"]
    chain = [sealed(number, node) for node in ("n1", "n2") for number in range(1, BLOCKS)]
    clients = [Sent(0.0, "t1.0.0"), Preconfirmed(1.0, "t1.0.0", 1)]
    return [*stream, *clients, Fault(20.0, 1, "SIGKILL", "conductor", "sequencer-0", 7), Restored(22.0, 1, 8), *chain]


def rules(history):
    return {violation.rule for violation in check(history).violations}


def without(history, drop):
    return [event for event in history if not (isinstance(event, Seen) and drop(event))]


def test_a_good_history_passes():
    report = check(good())
    assert report.passed, report.violations
    assert (report.flashblocks, report.blocks, report.transactions) == (9, 3, 18)


def test_a_block_still_open_is_not_judged():
    assert check([*good(), seen(4, 0, "a"), seen(4, 1, "a"), Preconfirmed(41.0, "t4.1.0", 4)]).passed


def test_joining_and_leaving_in_the_middle_is_no_gap():
    assert check([event for event in good() if not (isinstance(event, Seen) and event.number == 1)]).passed


def test_no_flashblock_at_all_is_no_pass():
    assert rules([sealed(1)]) == {UNANSWERED}


@pytest.mark.parametrize("change", [{"payload_id": "x"}, {"block_hash": "x"}, {"transactions": ("t2.1.1", "t2.1.0")}])
def test_two_bodies_for_one_place_are_an_equivocation(change):
    assert EQUIVOCATION in rules([*good(), seen(2, 1, "c", **change)])


def test_a_seen_transaction_missing_from_the_block_is_lost():
    history = [event for event in good() if not (isinstance(event, SealedBlock) and event.number == 2)]
    history += [sealed(2, node, transactions=("t2.0.0", "t2.0.1")) for node in ("n1", "n2")]
    report = check(history)
    assert report.count(LOST_TRANSACTION) == 4
    assert report.count(LOST_FLASHBLOCK) == 2


def test_a_block_that_is_not_in_the_chain_loses_its_flashblocks():
    history = [event for event in good() if not (isinstance(event, SealedBlock) and event.number == 2)]
    assert LOST_FLASHBLOCK in rules(history)


def test_a_receipt_that_came_to_nothing_is_lost():
    assert rules([*good(), Preconfirmed(5.0, "t9", 2)]) == {LOST_TRANSACTION}


def test_another_order_in_the_block_is_noticed():
    history = [event for event in good() if not (isinstance(event, SealedBlock) and event.number == 2)]
    swapped = ("t2.1.0", "t2.1.1", "t2.0.0", "t2.0.1", "t2.2.0", "t2.2.1")
    assert rules([*history, sealed(2, transactions=swapped)]) == {REORDERED}


@pytest.mark.parametrize("change", [{"block_hash": "x"}, {"transactions": ()}])
def test_two_nodes_with_different_blocks_are_a_fork(change):
    assert FORK in rules([*good(), sealed(2, "n3", **change)])


def test_a_block_on_another_parent_is_a_fork():
    chain = [sealed(1, "n9"), sealed(2, "n9", parent_hash="x")]
    assert FORK in rules([seen(1, 0), *chain])


def test_the_same_flashblock_twice_is_a_duplicate_at_that_subscriber():
    assert rules([*good(), seen(2, 1, "a")]) == {DUPLICATE}


@pytest.mark.parametrize("place", [(1, 1), (2, 0), (2, 1), (2, 2)])
def test_a_missing_index_is_a_gap_unless_announced(place):
    holed = without(good(), lambda event: event.source == "a" and (event.number, event.index) == place)
    assert rules(holed) == {GAP}
    number, index = place
    assert check([GapAnnounced(1.0, "a", number, index, index), *holed]).passed
    assert rules([GapAnnounced(1.0, "b", number, index, index), *holed]) == {GAP}


def test_a_whole_missing_block_is_a_gap_unless_announced():
    holed = without(good(), lambda event: event.source == "a" and event.number == 2)
    assert rules(holed) == {GAP}
    assert check([GapAnnounced(1.0, "a", 2, 0, 0), *holed]).passed
    assert rules([GapAnnounced(1.0, "a", 2, 1, 1), *holed]) == {GAP}


def test_going_backwards_is_a_gap():
    assert GAP in rules([*good(), seen(1, 9, "a", transactions=())])


def test_an_older_epoch_after_a_newer_one_is_stale():
    history = [seen(1, 0), seen(1, 1, epoch=2), seen(1, 2, epoch=1), sealed(1)]
    assert rules(history) == {STALE_EPOCH}


def test_a_deposed_leader_that_publishes_something_new_is_stale_wherever_it_is_heard():
    door = [seen(1, 0, "a"), seen(1, 1, "a", epoch=2), seen(1, 2, "door", edge=False, epoch=1)]
    assert rules([*door, seen(1, 2, "a", epoch=2), sealed(1)]) == {STALE_EPOCH}


def test_what_was_committed_before_the_claim_may_arrive_after_it():
    late = [seen(1, 0, "a"), seen(1, 1, "new door", edge=False, epoch=2), seen(1, 1, "a"), seen(1, 2, "a")]
    republished = [seen(1, index, "new door", edge=False, epoch=2) for index in range(INDICES)]
    assert check([*late, *republished, sealed(1)]).passed
    other = [seen(1, 2, "new door", edge=False, epoch=2, block_hash="other")]
    assert STALE_EPOCH in rules([*late, *republished[:2], *other, sealed(1)])
    older = [seen(2, index, "new door", edge=False, epoch=2) for index in range(INDICES)]
    assert check([seen(1, 0, "a"), *older, seen(1, 1, "a"), seen(1, 2, "a"), sealed(1), sealed(2)]).passed


def test_a_conductor_may_repeat_itself_and_be_late_with_what_is_known():
    door = [seen(n, i, "door", edge=False) for n in (1, 1, 2) for i in range(INDICES)]
    late = seen(1, 1, "other door", edge=False, epoch=1)
    assert check([seen(1, 0, "x", epoch=1), *good(), *door, seen(3, 0, "a2", epoch=4), late]).passed


@given(st.data())
def test_no_single_loss_goes_unnoticed(data):
    history = good()
    candidates = [
        place for place, event in enumerate(history) if isinstance(event, Seen) and 1 < event.number < BLOCKS - 1
    ]
    dropped = data.draw(st.sampled_from(candidates))
    assert not check(history[:dropped] + history[dropped + 1 :]).passed


def test_a_history_survives_the_disk(tmp_path):
    history = [*good(), GapAnnounced(1.0, "a", 1, 2, 3), Link(1.0, "a", False)]
    write(tmp_path / "history.jsonl", history)
    assert list(read(tmp_path / "history.jsonl")) == history


def pending(number, count=2, *, latest=1, at=25.0, source="rpc-0"):
    transactions = () if number is None else sealed(number).transactions[:count]
    return PendingRead(at, source, latest, number, transactions)


def test_pending_may_show_the_open_block_or_fall_through_to_latest():
    assert check([*good(), pending(2), pending(2, 6), pending(1, 6), pending(1, 6, at=99.0)]).passed


def test_null_for_pending_is_never_an_answer():
    assert rules([*good(), pending(None)]) == {NULL_PENDING}


def test_pending_behind_latest_is_stale():
    assert rules([*good(), pending(1, latest=2)]) == {STALE_PENDING}


def test_pending_that_stays_behind_the_stream_is_stale():
    old = [*good(), pending(2, at=30.0 + PENDING_AGE_S_MAX + 0.1)]
    assert rules(old) == {STALE_PENDING}
    assert check([*good(), pending(2, at=30.0 + PENDING_AGE_S_MAX - 0.1)]).passed
    assert check([*good(), pending(1, 6, at=99.0)]).passed  # it fell through, which says so


def test_pending_must_be_how_its_block_begins():
    wrong = PendingRead(25.0, "rpc-0", 1, 2, ("t2.0.1", "t2.0.0"))
    assert rules([*good(), wrong]) == {PENDING_DIVERGES}


def test_what_a_node_takes_back_is_lost():
    assert rules([*good(), Invalidated(25.0, "rpc-0", 2, ("t2.0.0",))]) == {WITHDRAWN}
    assert check([*good(), Invalidated(25.0, "rpc-0", 2, ())]).passed


def test_every_rule_belongs_to_one_promise():
    every = [rule for rules_of_one in PROMISES.values() for rule in rules_of_one]
    assert len(every) == len(set(every))
    report = check([*good(), pending(None), seen(2, 1, "a")])
    assert report.broken() == (5, 6)
