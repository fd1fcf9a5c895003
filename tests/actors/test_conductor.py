from pathlib import Path

from tests.actors.group_under_test import cluster, until


async def test_one_group_makes_blocks_out_of_flashblocks(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        group = made.groups[0]
        await until(lambda: group.head >= 3, "three blocks")
        ledger = group.conductor.component.raft.ledger
        assert not ledger.sealed(2).fallback
        assert len(ledger.sealed(2).entries) > 3
        assert group.boost.numbers[ledger.sealed(2).block_hash] == 2
