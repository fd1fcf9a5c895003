"""flashblocks genesis: a file that the clients take, with or without a fork to come."""

import json

import pytest

from cli.main import main
from flashblocks.execution import load_genesis


@pytest.mark.parametrize(("options", "jovian"), [((), None), (("--jovian-time", "1_800_000_060"), 1_800_000_060)])
def test_genesis(options: tuple[str, ...], jovian: int | None, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["genesis", "--chain-id", "905", "--timestamp", "1800000000", *options]) == 0
    spec, block, _ = load_genesis(json.loads(capsys.readouterr().out))
    assert (spec.chain_id, block.header.timestamp, spec.jovian_time) == (905, 1_800_000_000, jovian)
