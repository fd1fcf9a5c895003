"""Settings: what is contradictory is refused with both names, and a weak secret always."""

import pytest

from raft.settings import RaftSettings, RaftSettingsError, library_options, read_password, split_address

GOOD = {
    "node_id": "sequencer-0",
    "peers": {"sequencer-0": "127.0.0.1:50050", "sequencer-1": "127.0.0.1:50150"},
    "data_dir": "/nowhere",
    "password": bytes(32),
    "genesis_number": 0,
    "genesis_hash": bytes(32),
}


def test_the_defaults_fit_together():
    RaftSettings(**GOOD)


@pytest.mark.parametrize(
    ("change", "text"),
    [
        ({"node_id": "sequencer-9"}, "not among the peers"),
        ({"peers": {"sequencer-0": "127.0.0.1:1", "b": "127.0.0.1:1"}}, "same address"),
        ({"peers": {"sequencer-0": "127.0.0.1"}}, "host:port"),
        ({"peers": {"sequencer-0": "a:1", **{f"n{k}": f"a:{k + 2}" for k in range(9)}}}, "at most 9"),
        ({"listen": "0.0.0.0:0"}, "listen"),
        ({"password": bytes(31)}, "at least 32"),
        ({"genesis_hash": b""}, "32 bytes"),
        ({"raft_min_timeout_s": 0.5}, "raft_min_timeout_s must be positive and less than raft_max_timeout_s"),
        ({"connection_timeout_s": 0.4}, "raft_max_timeout_s must be positive and less than connection_timeout_s"),
        ({"append_entries_period_s": 0.1}, "three append_entries_period_s"),
        ({"leader_fallback_timeout_s": 0.35}, "two nodes could believe"),
        ({"tick_period_s": 0.0}, "tick_period_s"),
        ({"election_stagger_s": -0.1}, "election_stagger_s"),
        ({"compaction_entries": 500}, "trailing_entries"),
        ({"trailing_bytes_max": 2**40}, "trailing_bytes_max"),
        ({"segment_bytes": 0}, "segment_bytes"),
    ],
)
def test_a_contradiction_is_refused_by_name(change, text):
    with pytest.raises(RaftSettingsError, match=text):
        RaftSettings(**{**GOOD, **change})


def test_unknown_settings_are_refused():
    with pytest.raises(TypeError):
        RaftSettings(**GOOD, raft_minimum=3)


def test_a_password_file_is_read_without_white_space(tmp_path):
    path = tmp_path / "secret"
    path.write_bytes(b"\n" + b"s" * 32 + b"\n")
    assert read_password(path) == b"s" * 32


def test_a_missing_or_short_password_is_refused(tmp_path):
    with pytest.raises(RaftSettingsError, match="cannot read"):
        read_password(tmp_path / "none")
    (tmp_path / "short").write_bytes(b"s" * 31 + b"\n")
    with pytest.raises(RaftSettingsError, match="31 bytes"):
        read_password(tmp_path / "short")


def test_addresses_may_be_names_or_ipv6():
    assert split_address("conductor-0.local:50050", of="x") == ("conductor-0.local", 50050)
    assert split_address("[::1]:50050", of="x") == ("::1", 50050)


def test_the_password_is_not_shown():
    settings = RaftSettings(**{**GOOD, "password": b"very secret password of 32 bytes"})
    assert "secret" not in repr(settings)
    assert "secret" not in f"{settings}"


def test_the_library_is_told_what_was_measured():
    options = library_options(RaftSettings(**GOOD))
    assert (options["appendEntriesUseBatch"], options["commandsWaitLeader"], options["useFork"]) == (
        False,
        False,
        False,
    )
    assert options["leaderFallbackTimeout"] <= options["raftMinTimeout"] < options["raftMaxTimeout"]
