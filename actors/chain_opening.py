"""Opening a client's chain: wait for the process before us to let go, and put a damaged store aside.

What a store holds can be fetched from the other clients, so a damaged one must not keep this one from coming back. It
is kept beside the new one, for whoever wants to know what happened.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

from flashblocks.execution.chain import Chain
from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.header import Block
from flashblocks.execution.recovery import ChainKeeper
from flashblocks.execution.state import WorldState
from flashblocks.execution.store import ChainStore, StoreCorrupt, StoreLocked

CHAIN_DIRECTORY = "chain"
DAMAGED_DIRECTORY = "chain.damaged"
LOCK_WAIT_S_MAX = 5.0
LOCK_RETRY_S = 0.05


def open_chain(
    data_dir: Path, spec: ChainSpec, genesis: Block, state: WorldState, log: Any
) -> tuple[ChainKeeper, Chain]:
    """The chain under `data_dir`, at the head where it was left; a new one where there is none, or a damaged one.

    Raises StoreLocked when another process keeps it, StoreError when it is another chain's or the disk fails.
    """
    directory = data_dir / CHAIN_DIRECTORY
    try:
        return _open(directory, spec, genesis, state)
    except StoreCorrupt as error:
        aside = data_dir / DAMAGED_DIRECTORY
        shutil.rmtree(aside, ignore_errors=True)
        directory.rename(aside)
        log.error("the chain store is damaged; it is put aside, and the chain begins at genesis", error=str(error))
    return _open(directory, spec, genesis, state)


def _open(directory: Path, spec: ChainSpec, genesis: Block, state: WorldState) -> tuple[ChainKeeper, Chain]:
    keeper = ChainKeeper(_open_store(directory))
    try:
        return keeper, keeper.open(spec, genesis, state)
    except BaseException:
        keeper.close()
        raise


def _open_store(directory: Path) -> ChainStore:
    deadline = time.monotonic() + LOCK_WAIT_S_MAX
    while True:
        try:
            return ChainStore(directory)
        except StoreLocked:
            if time.monotonic() > deadline:
                raise
            time.sleep(LOCK_RETRY_S)
