"""The data directory: secrets only the owner can read, a genesis that stays, and no mixing of chains."""

from pathlib import Path

import orjson
import pytest

from actors.data_directory import ChainMismatch, prepare, write_atomically, write_secret
from actors.plan import ClusterOptions
from flashblocks.execution import default_genesis, load_genesis


def test_the_first_start_makes_a_chain_and_the_second_keeps_it(tmp_path: Path) -> None:
    first = prepare(tmp_path, ClusterOptions(), 1_800_000_000)
    genesis = orjson.loads((tmp_path / "genesis.json").read_bytes())
    _, block, _ = load_genesis(genesis)
    assert first == {"chain_id": 901, "block_time_s": 2, "genesis_hash": "0x" + block.header.hash.hex()}
    assert block.header.timestamp == 1_800_000_000
    assert prepare(tmp_path, ClusterOptions(), 1_900_000_000) == first
    assert orjson.loads((tmp_path / "genesis.json").read_bytes()) == genesis


def test_a_genesis_that_lies_there_is_the_chain_s(tmp_path: Path) -> None:
    own = default_genesis(timestamp=1_800_000_000, jovian_time=1_800_000_060)
    (tmp_path / "genesis.json").write_bytes(orjson.dumps(own))
    chain = prepare(tmp_path, ClusterOptions(), 1_900_000_000)
    assert chain["genesis_hash"] == "0x" + load_genesis(own)[1].header.hash.hex()
    assert orjson.loads((tmp_path / "genesis.json").read_bytes()) == own
    with pytest.raises(ChainMismatch, match="chain_id 901, not 902"):
        prepare(tmp_path, ClusterOptions(chain_id=902), 1_900_000_000)


@pytest.mark.parametrize(
    ("other", "text"),
    [
        (ClusterOptions(chain_id=902), "chain_id 901, not 902"),
        (ClusterOptions(block_time_s=1), "block_time_s 2, not 1"),
    ],
)
def test_a_directory_of_another_chain_is_refused(tmp_path: Path, other: ClusterOptions, text: str) -> None:
    prepare(tmp_path, ClusterOptions(), 1_800_000_000)
    with pytest.raises(ChainMismatch, match=text):
        prepare(tmp_path, other, 1_800_000_000)


def test_secrets_are_private_long_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "secret"
    write_secret(path)
    assert path.stat().st_mode & 0o777 == 0o600
    content = path.read_text()
    assert len(bytes.fromhex(content)) == 32
    write_secret(path)
    assert path.read_text() == content
    write_secret(tmp_path / "other")
    assert (tmp_path / "other").read_text() != content


def test_an_atomic_write_replaces_and_leaves_no_other_file(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]
