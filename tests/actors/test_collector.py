"""The collector works between blocks, frees cycles, and leaves the interpreter as it found it."""

import gc
import weakref

from actors.collector import FULL_EVERY_BLOCKS, BlockCollector


class Knot:
    """Refers to itself: only the collector frees it."""

    def __init__(self) -> None:
        self.itself = self


def test_cycles_are_freed_between_blocks_and_not_before() -> None:
    enabled = gc.isenabled()
    with BlockCollector() as collector:
        knot = weakref.ref(Knot())
        assert not gc.isenabled() and knot() is not None
        assert collector.between_blocks() > 0
        assert knot() is None
    assert gc.isenabled() == enabled and gc.get_freeze_count() == 0


def test_what_has_grown_old_is_freed_in_the_long_run() -> None:
    with BlockCollector() as collector:
        knot = Knot()
        seen = weakref.ref(knot)
        for _ in range(3):
            collector.between_blocks()
        del knot
        collector.between_blocks()
        assert seen() is not None, "it is in the old generation by now"
        for _ in range(FULL_EVERY_BLOCKS):
            collector.between_blocks()
        assert seen() is None
