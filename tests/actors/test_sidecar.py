import json
from pathlib import Path

import pytest

from actors.sidecar import read_genesis_hash, read_jwt_secret

HASH = "0x" + "ab" * 32


def test_a_given_hash_is_taken(tmp_path: Path) -> None:
    assert read_genesis_hash(HASH, str(tmp_path / "genesis.json")) == b"\xab" * 32


def test_the_cluster_wrote_it_beside_the_genesis_file(tmp_path: Path) -> None:
    (tmp_path / "chain.json").write_text(json.dumps({"genesis_hash": HASH}))
    assert read_genesis_hash("", str(tmp_path / "genesis.json")) == b"\xab" * 32


@pytest.mark.parametrize("content", [None, "{", "{}", '{"genesis_hash": "0x12"}'])
def test_what_is_missing_or_broken_is_named(tmp_path: Path, content: str | None) -> None:
    if content is not None:
        (tmp_path / "chain.json").write_text(content)
    with pytest.raises(ValueError, match=r"genesis_hash|--genesis-hash"):
        read_genesis_hash("", str(tmp_path / "genesis.json"))


@pytest.mark.parametrize("prefix", ["", "0x"])
def test_a_jwt_secret_with_and_without_prefix(tmp_path: Path, prefix: str) -> None:
    (tmp_path / "jwt").write_text(prefix + "cd" * 32 + "\n")
    assert read_jwt_secret(str(tmp_path / "jwt")) == b"\xcd" * 32
    assert read_jwt_secret("") is None


def test_a_short_jwt_secret_is_refused(tmp_path: Path) -> None:
    (tmp_path / "jwt").write_text("cd" * 31)
    with pytest.raises(ValueError, match="32 bytes"):
        read_jwt_secret(str(tmp_path / "jwt"))
