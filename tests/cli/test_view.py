"""What people see: tables and lines made of what the components say."""

import io
from typing import Any

import pytest
from rich.console import Console

from cli.snapshot import leader_of
from cli.stream import SeenFlashblock, SeenGap
from cli.view import StreamView, groups_table, live, others_table, plain
from cli.watch import line


def seen(number: int, index: int, *, at: float, transactions: int = 0, epoch: int = 3) -> SeenFlashblock:
    return SeenFlashblock(
        at=at,
        epoch=epoch,
        number=number,
        index=index,
        transactions=transactions,
        gas_used=21_000 * transactions,
        size_bytes=500,
        block_hash="0x" + "ab" * 32,
        payload_id="0x" + "01" * 8,
    )


def entry(status: dict[str, Any] | None, restarts: int = 0) -> dict[str, Any]:
    return {"status": status, "restarts": restarts, "pid": 1, "http": "http://h:1", "name": "n"}


def snapshot() -> dict[str, Any]:
    leading = {"component": "conductor", "role": "leader", "active": True, "epoch": 3, "health": "healthy", "number": 9}
    following = {**leading, "role": "follower", "active": False, "health": "chain_stalled"}
    groups = [
        {"name": "sequencer-0", "actors": {"conductor": entry(following), "op-node": entry(None, restarts=2)}},
        {"name": "sequencer-1", "actors": {"conductor": entry(leading), "op-node": entry({"number": 9, "index": 4})}},
    ]
    return {
        "groups": groups,
        "leader": leader_of(groups),
        "proxies": [{**entry({"ready": True}), "name": "proxy-0", "ws": "ws://h:1/ws"}],
        "rpc_nodes": [],
        "ingress": [],
    }


def rendered(*renderables: Any) -> str:
    console = Console(width=160, record=True, file=io.StringIO())
    for each in renderables:
        console.print(each)
    return console.export_text()


def test_the_leader_is_the_claim_with_the_highest_epoch() -> None:
    def group(name: str, epoch: int, role: str = "leader") -> dict[str, Any]:
        status = {"role": role, "epoch": epoch, "active": True}
        return {"name": name, "actors": {"conductor": entry(status)}}

    groups = [
        group("a", 4),
        group("b", 5),
        group("c", 6, "follower"),
        {"name": "d", "actors": {"conductor": entry(None)}},
    ]
    assert leader_of(groups) == {"group": "b", "epoch": 5, "active": True}
    assert leader_of(groups[2:]) is None


def test_tables_show_leader_health_height_restarts_and_silence() -> None:
    shown = rendered(groups_table(snapshot()), others_table(snapshot()))
    rows = {row.split()[0]: row for row in shown.splitlines() if "sequencer" in row or "▶" in row}
    assert "no answer ↻2" in rows["sequencer-0"]
    assert "follower chain_stalled #9" in rows["sequencer-0"]
    assert "▶ sequencer-1" in shown
    assert "leader healthy #9" in rows["▶"]
    assert "#9.4" in rows["▶"]
    assert "proxy-0 (websocket-proxy)" in shown
    assert "ws://h:1/ws" in shown


def test_the_live_view_counts_user_transactions_and_gaps() -> None:
    stream = StreamView()
    stream.add(seen(9, 0, at=100.0, transactions=1))  # the deposits are not the users'
    stream.add(seen(9, 1, at=100.2, transactions=20))
    stream.add(SeenGap(at=100.3, number=9, index_from=2, index_to=3))
    assert stream.rate_tps(100.3) == 2.0
    assert stream.rate_tps(200.0) == 0.0
    shown = rendered(live(snapshot(), stream, started_at=0.0, now=100.3))
    for text in ("sequencer-1", "20 (2/s)", "100 ms ago", "up 0:01:40"):
        assert text in shown
    assert plain(snapshot(), stream, 100.3) == (
        "leader sequencer-1  block 9 index 1 epoch 3  flashblocks 2  transactions 20 (2/s)  gaps 1  "
        "silent components 1  restarts 2"
    )


def test_before_anything_is_known_the_view_says_so() -> None:
    shown = rendered(live(None, StreamView(), started_at=0.0, now=1.0))
    assert "none yet" in shown
    assert "no flashblock yet" in plain(None, StreamView(), 1.0)


def test_silence_is_loud() -> None:
    stream = StreamView()
    stream.add(seen(9, 1, at=100.0))
    assert "silent for 30 s" in rendered(live(None, stream, started_at=0.0, now=130.0))


@pytest.mark.parametrize(
    ("event", "last_at", "text"),
    [
        (seen(12, 3, at=5.25, transactions=2), 5.0, "block      12  index  3  epoch   3     2 tx"),
        (seen(12, 3, at=5.25), 5.0, "+250 ms"),
        (SeenGap(5.0, 12, 4, 6), None, "GAP: 4…6 cannot be provided"),
    ],
)
def test_a_line_per_flashblock(event: SeenFlashblock | SeenGap, last_at: float | None, text: str) -> None:
    assert text in line(event, last_at)
