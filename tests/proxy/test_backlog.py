from hypothesis import given
from hypothesis import strategies as st

from flashblocks.proxy.backlog import Backlog, Owed


def filled(blocks, *, indices=3, blocks_max=4, bytes_max=1_000_000, size=10):
    backlog = Backlog(blocks_max=blocks_max, bytes_max=bytes_max)
    for number in blocks:
        for index in range(indices):
            backlog.add(number, index, size, (number, index))
    return backlog


def test_nothing_is_owed_before_anything_came():
    assert filled([]).owed(None) == Owed([])
    assert filled([]).owed((7, 0)) == Owed([])


def test_a_late_joiner_gets_the_open_block_from_index_0():
    assert filled([7, 8]).owed(None) == Owed([(8, 0), (8, 1), (8, 2)])


def test_a_resuming_one_gets_everything_from_its_place_on():
    assert filled([7, 8]).owed((7, 2)) == Owed([(7, 2), (8, 0), (8, 1), (8, 2)])
    assert filled([7, 8]).owed((8, 3)) == Owed([])
    assert filled([7, 8]).owed((9, 0)) == Owed([])
    assert filled([7, 9]).owed((8, 0)) == Owed([(9, 0), (9, 1), (9, 2)])


def test_what_is_no_longer_kept_is_said_to_be_missing():
    backlog = filled(range(7, 13), blocks_max=2)
    assert backlog.owed((7, 1)) == Owed([(n, i) for n in (11, 12) for i in range(3)], (7, 1))


def test_the_open_block_is_kept_whole_whatever_its_size():
    backlog = filled([7, 8], bytes_max=15)
    assert backlog.owed(None) == Owed([(8, 0), (8, 1), (8, 2)])
    assert (len(backlog), backlog.size_bytes) == (3, 30)


def test_history_goes_in_front_as_far_as_the_bounds_allow():
    older = [((n, i), 10, (n, i)) for n in (4, 5, 6) for i in range(3)]
    backlog = filled([7], blocks_max=3)
    backlog.add_before(older)
    assert backlog.owed((0, 0)) == Owed([(n, i) for n in (5, 6, 7) for i in range(3)], (0, 0))
    backlog = filled([7], bytes_max=50)
    backlog.add_before(older)
    assert backlog.owed((0, 0)).items == [(6, 1), (6, 2), (7, 0), (7, 1), (7, 2)]
    assert backlog.size_bytes == 50
    empty = filled([])
    empty.add_before(older)
    assert len(empty) == 0


@given(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 50)), max_size=60), st.integers(1, 4), st.integers(1, 120))
def test_bounds_hold_for_everything_but_the_open_block(steps, blocks_max, bytes_max):
    backlog = Backlog(blocks_max=blocks_max, bytes_max=bytes_max)
    number, index, log = 1, -1, []
    for jump, size in steps:
        number, index = (number + jump, 0) if jump else (number, index + 1)
        backlog.add(number, index, size, (number, index))
        log.append(((number, index), size))
        kept = backlog.owed((0, 0)).items
        assert kept == [key for key, _ in log][len(log) - len(kept) :]
        assert backlog.size_bytes == sum(size for _, size in log[len(log) - len(kept) :])
        closed = [key for key in kept if key[0] < number]
        assert not closed or (backlog.size_bytes <= bytes_max and closed[0][0] > number - blocks_max)
        assert backlog.owed(None).items == [key for key, _ in log if key[0] == number]


def test_a_chain_that_began_anew_starts_an_empty_backlog():
    backlog = Backlog(blocks_max=3, bytes_max=1000)
    backlog.add(7, 0, 10, "old")
    backlog.clear()
    assert (len(backlog), backlog.size_bytes, backlog.oldest) == (0, 0, None)
    backlog.add(1, 0, 10, "new")
    assert backlog.owed(None).items == ["new"]
