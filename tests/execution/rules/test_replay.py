"""Real OP-Sepolia blocks: the hash comes out exactly, whole and in ten sub-blocks."""

from pathlib import Path

import pytest

from flashblocks.execution.replay import replay_file


@pytest.mark.parametrize("sub_blocks", [1, 10])
def test_real_blocks_come_out_exactly(vectors: list[Path], sub_blocks: int) -> None:
    for path in vectors:
        result = replay_file(path, sub_blocks)
        assert result.hash_match, (path.name, result.block_hash.hex())
        assert result.gas > 0


def test_unknown_engine_is_refused(vectors: list[Path]) -> None:
    with pytest.raises(ValueError, match="engine"):
        replay_file(vectors[0], engine="warp")
