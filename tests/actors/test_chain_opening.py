"""Opening a chain: a damaged store is put aside, a locked one waited for, a foreign one refused."""

import threading
from pathlib import Path

import pytest
import structlog

from actors import chain_opening
from actors.chain_opening import open_chain
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.recovery import ChainKeeper
from flashblocks.execution.store import ChainStore, StoreError, StoreLocked
from tests.execution.forge import Forge

FORGE = Forge()
LOG = structlog.get_logger()


def test_a_damaged_store_is_put_aside_and_the_chain_begins_anew(tmp_path: Path) -> None:
    keeper = ChainKeeper(ChainStore(tmp_path / "chain", segment_size_bytes_max=2_000))
    chain = keeper.open(FORGE.spec, FORGE.block, FORGE.state)
    for block in FORGE.blocks(6):
        assert chain.import_block(block).status == "VALID"
        chain.set_head(block.hash)
    keeper.close()
    segments = sorted((tmp_path / "chain").glob("blocks-*.log"))
    assert len(segments) > 2
    segments[1].write_bytes(b"damage" * 100)
    keeper, chain = open_chain(tmp_path, FORGE.spec, FORGE.block, FORGE.state, LOG)
    assert chain.head.hash == FORGE.block.hash
    assert (tmp_path / "chain.damaged" / segments[1].name).read_bytes().startswith(b"damage")
    keeper.close()


def test_the_process_before_us_may_take_its_time_to_go(tmp_path: Path) -> None:
    store = ChainStore(tmp_path / "chain")
    threading.Timer(0.1, store.close).start()
    keeper, _ = open_chain(tmp_path, FORGE.spec, FORGE.block, FORGE.state, LOG)
    keeper.close()


def test_a_store_that_stays_locked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(chain_opening, "LOCK_WAIT_S_MAX", 0.0)
    store = ChainStore(tmp_path / "chain")
    with pytest.raises(StoreLocked):
        open_chain(tmp_path, FORGE.spec, FORGE.block, FORGE.state, LOG)
    store.close()


def test_another_chain_s_store_is_refused_and_left_alone(tmp_path: Path) -> None:
    keeper, _ = open_chain(tmp_path, FORGE.spec, FORGE.block, FORGE.state, LOG)
    keeper.close()
    with pytest.raises(StoreError, match="holds another chain"):
        open_chain(tmp_path, *load_genesis(default_genesis(timestamp=5)), LOG)
    assert not (tmp_path / "chain.damaged").exists()
