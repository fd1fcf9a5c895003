"""Python's cyclic collector kept off the hot path: nothing here makes cycles, but the collector walks what is alive.

One full pass over a state of 100 k accounts takes about 0.1 s, half a flashblock. A process that executes blocks calls
`start` once its state is loaded and `between_blocks` when a block is done and nothing is due.
"""

import gc

FULL_COLLECTION_EVERY_BLOCKS = 900  # half an hour of two-second blocks


class Collector:
    """Collects between blocks only."""

    def __init__(self) -> None:
        self._blocks = 0

    def start(self) -> None:
        """Exempt what is alive now (the loaded state and all modules) from collection, and stop automatic passes."""
        gc.collect()
        gc.freeze()
        gc.disable()

    def between_blocks(self) -> None:
        """A pass over the young objects (about a millisecond); rarely over all."""
        self._blocks += 1
        if self._blocks % FULL_COLLECTION_EVERY_BLOCKS:
            gc.collect(1)
        else:
            gc.collect()
            gc.freeze()

    def stop(self) -> None:
        """Back to Python's own ways."""
        gc.unfreeze()
        gc.enable()
