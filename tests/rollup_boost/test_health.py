import pytest

from flashblocks.rollup_boost.health import OFFENCE_REMEMBERED_S, PeerHealth, judge_health
from flashblocks.rollup_boost.selection import ExecutionMode

A, B = b"a" * 8, b"b" * 8


@pytest.mark.parametrize(
    ("mode", "execution", "builder", "status"),
    [
        (ExecutionMode.ENABLED, "", "", 200),
        (ExecutionMode.ENABLED, "", "gone", 206),
        (ExecutionMode.ENABLED, "gone", "", 503),
        (ExecutionMode.ENABLED, "gone", "gone", 503),
        (ExecutionMode.DRY_RUN, "", "gone", 206),
        (ExecutionMode.DISABLED, "", "gone", 200),
        (ExecutionMode.DISABLED, "gone", "", 503),
    ],
)
def test_the_table(mode: ExecutionMode, execution: str, builder: str, status: int) -> None:
    health = judge_health(mode, PeerHealth(failure=execution), PeerHealth(failure=builder))
    assert health.status == status
    assert ("gone" in health.detail) == (status != 200)


def test_a_closed_lifeline_counts_at_once_and_a_new_process_starts_clean() -> None:
    peer = PeerHealth()
    assert not peer.fault, "a client without a lifeline is judged by its calls"
    peer.link(True)
    peer.called("timed out")
    assert peer.fault == "timed out"
    peer.link(False)
    assert peer.fault == "connection lost"
    peer.link(True)
    assert not peer.fault


def test_calls_heal_what_calls_broke() -> None:
    peer = PeerHealth()
    peer.called("refused")
    peer.called()
    assert not peer.fault


def test_a_single_missed_look_says_nothing() -> None:
    peer = PeerHealth()
    peer.looked("timed out")
    assert not peer.fault
    peer.looked("timed out")
    assert peer.fault == "timed out"
    peer.looked()
    assert not peer.fault


def test_an_offence_is_forgiven_only_by_a_good_block_after_it() -> None:
    peer = PeerHealth()
    peer.accuse(A, "wrong root", now=0)
    peer.accuse(A, "and late", now=0)
    peer.behaved(A)
    peer.called()
    assert peer.fault == "wrong root"
    peer.behaved(B)
    assert not peer.fault


def test_an_offence_is_forgotten_after_a_while() -> None:
    peer = PeerHealth()
    assert peer.remember(now=0) is None
    peer.accuse(A, "wrong root", now=100)
    assert peer.remember(now=100) == 100 + OFFENCE_REMEMBERED_S
    assert peer.fault == "wrong root"
    assert peer.remember(now=100 + OFFENCE_REMEMBERED_S) is None
    assert not peer.fault


def test_staleness_counts_only_once_the_chain_has_moved() -> None:
    peer = PeerHealth()
    peer.head(10_000, 10)
    assert not peer.fault, "an old genesis waits for its first block"
    peer.head(2, 10)
    peer.head(10, 10)
    assert not peer.fault, "exactly the limit is fresh"
    peer.head(11, 10)
    assert peer.fault == "head is 11 s old"
    peer.head(1, 10)
    assert not peer.fault
    peer.head(11, 0)
    assert not peer.fault, "0 switches the check off"
