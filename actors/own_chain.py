"""The chain an rpc-node keeps for itself: on disk as it was left, or anew from genesis, as others have all of it."""

from __future__ import annotations

import contextlib
import shutil
from pathlib import Path
from typing import Any

from flashblocks.execution.chain import Chain, ChainBlock
from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.header import Block
from flashblocks.execution.recovery import ChainKeeper
from flashblocks.execution.state import WorldState
from flashblocks.execution.store import ChainStore, StoreError, StoreFull, StoreLocked

Genesis = tuple[ChainSpec, Block, WorldState]


def open_chain(genesis: Genesis, directory: Path | None, log: Any) -> tuple[ChainKeeper | None, Chain]:
    """Open it in `directory` (None: in memory); raises StoreLocked and StoreFull, other damage is thrown away."""
    spec, block, state = genesis
    if directory is None:
        return None, Chain(spec, ChainBlock(block.header, (), (), state))
    try:
        keeper = ChainKeeper(ChainStore(directory))
        with contextlib.ExitStack() as undo:
            undo.callback(keeper.close)
            chain = keeper.open(spec, block, state)
            undo.pop_all()
        return keeper, chain
    except (StoreLocked, StoreFull):
        raise
    except StoreError as error:
        log.error("the chain on disk is of no use; starting anew", directory=str(directory), error=str(error))
        shutil.rmtree(directory)
        keeper = ChainKeeper(ChainStore(directory))
        return keeper, keeper.open(spec, block, state)
