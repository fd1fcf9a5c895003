import msgspec

from flashblocks.sequencing.labels import FINALIZED_DEPTH_L1_BLOCKS, SAFE_DEPTH_L1_BLOCKS, Labels
from tests.sequencing.chain import GENESIS, L1


def block(number: int, origin: int, name: bytes = b"\x01"):
    return msgspec.structs.replace(GENESIS, number=number, hash=name * 32, l1_origin=L1.block(origin).id)


def test_a_block_is_safe_when_its_origin_is_deep_enough() -> None:
    labels = Labels(GENESIS)
    for number in range(1, 25):
        labels.on_head(block(number, number // 6), number // 6)
    assert labels.safe.l1_origin.number == 4 - SAFE_DEPTH_L1_BLOCKS
    assert labels.safe.number == 17
    assert labels.finalized == GENESIS


def test_finalized_follows_deeper() -> None:
    labels = Labels(GENESIS)
    for number in range(1, 80):
        labels.on_head(block(number, number), number)
    assert labels.finalized.number == 79 - FINALIZED_DEPTH_L1_BLOCKS


def test_a_replaced_head_is_forgotten() -> None:
    labels = Labels(GENESIS)
    labels.on_head(block(1, 0, b"\x07"), 0)
    labels.on_head(block(1, 0, b"\x08"), 0)
    labels.on_head(block(2, 1), 5)
    assert labels.safe.number == 2
    labels = Labels(GENESIS)
    labels.on_head(block(1, 0, b"\x07"), 0)
    labels.on_head(block(1, 0, b"\x08"), 5)
    assert labels.safe.hash == b"\x08" * 32


def test_labels_never_go_back() -> None:
    labels = Labels(GENESIS)
    labels.resume(block(9, 1), block(5, 0))
    assert (labels.safe.number, labels.finalized.number) == (9, 5)
    labels.resume(block(3, 1), None)
    labels.on_head(block(4, 0), 100)
    assert (labels.safe.number, labels.finalized.number) == (9, 5)
