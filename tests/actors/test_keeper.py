"""The keeper's files: made once, the same for everybody, taken from the hosts that have them."""

import pytest

from actors.data_directory import ChainMismatch
from actors.host_agent import DATA_FILES
from actors.keeper import complete_files
from tests.actors.test_join_order import order


def test_where_no_host_has_anything_everything_is_made() -> None:
    files, chain = complete_files([{}, {}], order())
    assert set(files) == set(DATA_FILES)
    assert chain["chain_id"] == 901
    assert len(files["jwt.hex"]) == len(files["raft-password"]) == 64


def test_what_a_host_has_is_kept_and_only_the_rest_made() -> None:
    files, chain = complete_files([{}], order())
    held = {name: files[name] for name in ("genesis.json", "chain.json", "jwt.hex")}
    again, same_chain = complete_files([{}, held], order())
    assert {name: again[name] for name in held} == held
    assert same_chain == chain
    assert again["raft-password"] != files["raft-password"]


def test_hosts_of_two_chains_are_refused() -> None:
    first, _ = complete_files([], order())
    second, _ = complete_files([], order())
    with pytest.raises(ChainMismatch, match="different versions of"):
        complete_files([first, second], order())
