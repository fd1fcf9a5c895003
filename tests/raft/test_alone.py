"""The ledger that goes on without a majority: what it begins with, whose word it takes, how it is taken back."""

from raft.alone import AloneLedger, appends, seal
from raft.ledger import Accepted, Appended, Claim, Claimed, Ledger, Reason, Sealed
from tests.raft.test_ledger import TWO, append, fallback, hash_of, ledger_with
from tests.raft.test_ledger import seal as sealing


def opened() -> Ledger:
    """Block 1 is sealed, block 2 has its indices 0 and 1."""
    parent = hash_of("block 1.0")
    second = [append(2, index, payload=TWO, parent=parent) for index in (0, 1)]
    return ledger_with(append(), sealing(), *second)


def next_append(index: int, epoch: int = 1, node: str = "a", body: bytes | None = None):
    return append(2, index, payload=TWO, parent=hash_of("block 1.0"), epoch=epoch, node=node, body=body)


def test_it_continues_the_open_block_in_the_same_epoch_under_its_own_name() -> None:
    alone = AloneLedger(opened().view, [], "b")
    assert (alone.view.epoch, alone.view.owner, alone.view.open.last_index) == (1, "b", 1)
    answer, events = alone.apply(next_append(2, epoch=99, node="whoever"))
    assert answer == Accepted()
    assert [(event.epoch, event.node, event.index) for event in events if isinstance(event, Appended)] == [(1, "b", 2)]
    assert alone.apply(next_append(1, body=b"another"))[0].reason is Reason.CONFLICTING_DIGEST


def test_what_only_this_nodes_log_has_is_part_of_it() -> None:
    alone = AloneLedger(opened().view, [next_append(2), Claim(7, "c"), next_append(3, epoch=7, node="c")], "b")
    assert alone.view.open.last_index == 3
    assert (alone.epoch, alone.view.epoch, alone.view.owner) == (7, 7, "b")


def test_a_cluster_in_which_nobody_ever_led_has_a_first_epoch() -> None:
    alone = AloneLedger(Ledger(0, b"\0" * 32).view, [], "b")
    assert alone.view.epoch == 1
    assert alone.apply(append())[0] == Accepted()


def test_a_majority_that_took_all_of_it_has_the_same_chain() -> None:
    real = opened()
    alone = AloneLedger(real.view, [], "b")
    alone.apply(next_append(2))
    alone.apply(sealing(2, 2, payload=TWO))
    alone.apply(append(3, parent=hash_of("block 2.2")))
    real.apply(Claim(5, "b"))
    block = alone.block(2)
    assert block is not None
    for command in [*appends(block, 5, "b"), seal(block, 5, "b"), *appends(alone.view.open, 5, "b")]:
        assert isinstance(real.apply(command)[0], Accepted), command
        real.check()
    assert real.head == alone.view.head
    assert real.open.block_hash == alone.view.open.block_hash
    assert real.epoch == 5


def test_the_first_block_is_kept_whatever_comes_after_it() -> None:
    alone = AloneLedger(ledger_with(append()).view, [], "b")
    alone.apply(append(1, 1))
    alone.apply(sealing(1, 1))
    parent = hash_of("block 1.1")
    for number in range(2, 300):
        assert alone.apply(fallback(number, parent=parent))[0] == Accepted()
        parent = hash_of(f"fallback {number}")
    assert alone.view.sealed(1) is None
    assert len(alone.block(1).entries) == 2


def test_what_a_majority_does_agrees_or_it_does_not() -> None:
    real = opened()
    alone = AloneLedger(real.view, [next_append(2)], "b")
    alone.apply(sealing(2, 2, payload=TWO))
    late = real.apply(next_append(2))[1]
    assert [alone.agrees(event) for event in late] == [True]
    other = opened().apply(next_append(2, body=b"another"))[1]
    assert [alone.agrees(event) for event in other] == [False]
    sealed = real.apply(sealing(2, 2, payload=TWO))[1]
    assert [alone.agrees(event) for event in sealed] == [True]
    assert not alone.agrees(Sealed(1, "a", 2, b"x" * 32, False))
    assert alone.agrees(Sealed(1, "a", 1, hash_of("block 1.0"), False))
    assert not alone.agrees(Claimed(2, "c"))
    assert alone.agrees(Claimed(1, "a")), "who led before"
    beyond = real.apply(append(3, parent=hash_of("block 2.2")))[1]
    assert [alone.agrees(event) for event in beyond] == [False]


def test_it_can_begin_upon_a_block_that_only_the_execution_client_has() -> None:
    alone = AloneLedger(opened().view, [], "b")
    alone.begin_at(9, hash_of("block 9"))
    assert (alone.view.head_number, alone.view.open, alone.view.epoch, alone.view.owner) == (9, None, 1, "b")
    assert alone.apply(append(10, parent=hash_of("block 9")))[0] == Accepted()
