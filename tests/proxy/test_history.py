from flashblocks.proxy.history import History
from flashblocks.proxy.ordering import Arrival


def block_hash(number, index):
    return b"hash %d.%d" % (number, index)


def arrival(number, index, parent=None, epoch=1):
    parent = block_hash(number - 1, 2) if parent is None else parent
    return Arrival(
        0,
        epoch,
        number,
        index,
        b"payload %d" % number,
        parent,
        block_hash(number, index),
        b"digest %d.%d" % (number, index),
    )


def collect(history, *keys):
    done = [history.take(arrival(*key)) for key in keys]
    assert done == sorted(done)
    return [each.key for each in history.arrivals]


def test_it_is_complete_as_soon_as_it_leads_to_the_first():
    history = History(arrival(9, 0), blocks=2)
    assert history.start == (7, 0)
    keys = [(n, i) for n in (7, 8) for i in range(3)]
    assert collect(history, *keys[:5]) == []
    assert collect(history, keys[5]) == keys
    assert history.complete


def test_it_ends_before_the_first_although_replays_go_on():
    history = History(arrival(9, 1), blocks=1)
    keys = [(8, 0), (8, 1), (8, 2), (9, 0), (9, 1), (9, 2)]
    assert collect(history, *keys) == keys[:4]


def test_only_an_unbroken_run_counts():
    history = History(arrival(9, 0), blocks=3)
    assert collect(history, (6, 0), (6, 1), (8, 0), (8, 1), (8, 2)) == [(8, 0), (8, 1), (8, 2)]


def test_what_does_not_lead_to_the_first_is_nothing():
    other_chain = History(arrival(9, 0, parent=b"elsewhere"), blocks=1)
    assert collect(other_chain, (8, 0), (8, 1), (8, 2)) == []
    too_late = History(arrival(9, 0), blocks=1)
    assert collect(too_late, (9, 0), (9, 1)) == []
    assert too_late.fruitless and not too_late.complete


def test_a_replay_of_today_does_not_outdo_the_epoch_of_what_follows():
    history = History(arrival(9, 0, epoch=4), blocks=1)
    for index, epoch in enumerate((3, 4, 7)):
        history.take(arrival(8, index, epoch=epoch))
    assert [each.epoch for each in history.arrivals] == [3, 4, 4]


def test_the_chain_has_a_beginning():
    assert History(arrival(1, 0), blocks=5).start == (0, 0)
