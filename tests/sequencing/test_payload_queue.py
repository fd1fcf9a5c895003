import pytest

import flashblocks.sequencing.payload_queue as module
from flashblocks.sequencing.attributes import next_attributes
from flashblocks.sequencing.origin import select_origin
from flashblocks.sequencing.payload_queue import Arrival, PayloadQueue
from flashblocks.sequencing.references import reference_of_payload
from tests.sequencing.chain import CONFIG, GENESIS, GENESIS_TIME, L1, envelope


def chain(length: int, extra: bytes = b""):
    head, made = GENESIS, []
    for _ in range(length):
        origin = select_origin(CONFIG, L1, head, GENESIS_TIME + 10**6)
        made.append(envelope(head, next_attributes(CONFIG, L1, head, origin), extra))
        head = reference_of_payload(made[-1].payload)
    return made


BLOCKS = chain(6)
HEADS = [GENESIS, *(reference_of_payload(block.payload) for block in BLOCKS)]


def test_the_child_of_the_head_is_next() -> None:
    assert PayloadQueue().add(BLOCKS[0], GENESIS) is Arrival.NEXT


def test_what_is_ahead_waits_for_the_gap_to_be_filled() -> None:
    queue = PayloadQueue()
    assert queue.add(BLOCKS[2], GENESIS) is Arrival.AHEAD
    assert queue.add(BLOCKS[2], GENESIS) is Arrival.KNOWN
    assert queue.missing(GENESIS) == range(1, 3)
    assert queue.next(GENESIS) is None
    queue.on_head(HEADS[2])
    assert queue.missing(HEADS[2]) == range(3, 3)
    assert queue.next(HEADS[2]) == BLOCKS[2]
    assert len(queue) == 0


def test_what_the_head_contains_is_known() -> None:
    queue = PayloadQueue()
    for head in HEADS[:4]:
        queue.on_head(head)
    assert [queue.add(block, HEADS[3]) for block in BLOCKS[:3]] == [Arrival.KNOWN] * 3


def test_after_a_restart_what_the_engine_has_is_learnt() -> None:
    queue = PayloadQueue()
    queue.on_head(HEADS[3])
    assert queue.knows(3) and not queue.knows(2)
    queue.learn(2, b"\x66" * 32)
    assert queue.add(BLOCKS[1], HEADS[3]) is Arrival.REPLACES
    queue.learn(3, b"\x66" * 32)
    assert queue.add(BLOCKS[2], HEADS[3]) is Arrival.KNOWN, "what was seen counts"


def test_a_committed_block_replaces_another_one_at_its_height() -> None:
    queue = PayloadQueue()
    for head in HEADS[:3]:
        queue.on_head(head)
    other = chain(3, b"other")
    assert queue.add(other[1], HEADS[2]) is Arrival.REPLACES
    assert queue.add(other[2], HEADS[2]) is Arrival.REPLACES


def test_heights_long_gone_are_taken_as_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "KNOWN_HEADS_MAX", 2)
    queue = PayloadQueue()
    for head in HEADS[:5]:
        queue.on_head(head)
    assert queue.add(chain(1, b"other")[0], HEADS[4]) is Arrival.KNOWN


def test_the_nearest_payloads_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_PAYLOADS_MAX", 2)
    queue = PayloadQueue()
    assert queue.add(BLOCKS[3], GENESIS) is Arrival.AHEAD
    assert queue.add(BLOCKS[5], GENESIS) is Arrival.AHEAD
    assert queue.add(BLOCKS[1], GENESIS) is Arrival.AHEAD
    assert queue.add(BLOCKS[4], GENESIS) is Arrival.DROPPED
    assert len(queue) == 2
    assert queue.missing(GENESIS) == range(1, 2)


def test_the_bytes_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "QUEUE_BYTES_MAX", 10)
    queue = PayloadQueue()
    assert queue.add(BLOCKS[1], GENESIS) is Arrival.AHEAD
    assert queue.add(BLOCKS[2], GENESIS) is Arrival.DROPPED


def test_a_waiting_payload_on_another_parent_is_dropped_when_its_turn_comes() -> None:
    queue = PayloadQueue()
    other = chain(3, b"other")
    assert queue.add(other[1], GENESIS) is Arrival.AHEAD
    assert queue.next(HEADS[1]) is None
    assert len(queue) == 0
