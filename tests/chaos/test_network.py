"""Cutting connections: which packets are dropped is decided from the kernel's table; nft does it, where it may."""

import asyncio
import contextlib
import json
import os
import socket
import subprocess
import sys

import pytest

from chaos import network
from chaos.network import (
    BOTH,
    ESTABLISHED,
    INTO,
    OUT_OF,
    Socket,
    crossing,
    elements,
    packets,
    parse_sockets,
    ruleset,
)
from chaos.target import DrillError, Target

LISTEN = 0x0A
TABLE = """\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:13BA 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 101 1 0 100 0 0 10 0
   1: 0100007F:13BA 0100007F:D431 01 00000000:00000000 00:00000000 00000000     0        0 102 1 0 20 4 30 10 -1
   2: 0100007F:D431 0100007F:13BA 01 00000000:00000000 00:00000000 00000000     0        0 103 1 0 20 4 30 10 -1
"""


def test_the_kernels_table_is_read():
    assert parse_sockets(TABLE) == [
        Socket(5050, 0, LISTEN, 101),
        Socket(5050, 54321, ESTABLISHED, 102),
        Socket(54321, 5050, ESTABLISHED, 103),
    ]


def test_only_connections_between_the_sides_cross():
    left = [Socket(5050, 54321, ESTABLISHED, 1), Socket(5050, 40000, ESTABLISHED, 2), Socket(5050, 0, LISTEN, 3)]
    right = [Socket(54321, 5050, ESTABLISHED, 4), Socket(9, 40000, ESTABLISHED, 5)]
    assert crossing(left, right) == {(5050, 54321)}


def test_deaf_mute_and_cut_off_are_told_apart():
    pairs = [(5050, 54321)]
    assert packets(pairs, OUT_OF) == {(5050, 54321)}
    assert packets(pairs, INTO) == {(54321, 5050)}
    assert packets(pairs, BOTH) == {(5050, 54321), (54321, 5050)}


def test_the_rules_name_every_packet_and_no_empty_set():
    text = ruleset("t", [5050, 5150], [(1, 2), (3, 4)])
    assert "tcp dport { 5050, 5150 }" in text
    assert "add element inet t cut { 1 . 2, 3 . 4 }" in text
    assert "dport {" not in ruleset("t", [], [])
    assert elements("t", []) == ""


async def connection():
    """A connection within this process, and its ports: (near, far)."""
    accepted = asyncio.get_running_loop().create_future()
    server = await asyncio.start_server(lambda r, w: accepted.set_result((r, w)), "127.0.0.1", 0)
    near = await asyncio.open_connection(*server.sockets[0].getsockname())
    return server, near, await accepted


@pytest.mark.skipif(network.missing(None) is not None, reason="needs root and nft")
async def test_a_cut_connection_is_silent_and_goes_on_when_healed():
    server, near, far = await connection()
    ports = near[1].get_extra_info("sockname")[1], far[1].get_extra_info("sockname")[1]
    table = f"{network.TABLE}_{os.getpid()}"
    network.nft(ruleset(table, [], packets([ports], OUT_OF)))
    try:
        far[1].write(b"to the mute")
        assert await near[0].read(20) == b"to the mute"
        near[1].write(b"lost?")
        with pytest.raises(asyncio.TimeoutError):
            await asyncio.wait_for(far[0].read(20), 0.3)
    finally:
        network.nft(f"delete table inet {table}\n")
    assert await asyncio.wait_for(far[0].read(20), 30) == b"lost?"
    for one in (near[1], far[1]):
        one.close()
        with contextlib.suppress(OSError):
            await one.wait_closed()
    server.close()


def test_the_sockets_of_a_process_are_found():
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        mine = network.inodes([os.getpid()])
        with open("/proc/net/tcp") as table:
            (found,) = [one for one in parse_sockets(table.read()) if one.local_port == port and one.state == LISTEN]
        assert found.inode in mine
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert network.inodes([ended.pid]) == set()


def test_the_raft_ports_are_in_the_order_the_cluster_was_started_with(tmp_path):
    plan = [
        {"component": "conductor", "instance": "sequencer-0", "settings": {"raft_port": 5050}},
        {"component": "conductor", "instance": "sequencer-1", "settings": {"raft_port": 5150}},
        {"component": "builder", "instance": "sequencer-0", "settings": {}},
    ]
    target = Target(tmp_path / "endpoints.json")
    with pytest.raises(DrillError, match="Raft ports"):
        network.raft_ports(target, [{"name": "sequencer-1"}])
    (tmp_path / "options.json").write_text(json.dumps({"plan": plan}))
    assert network.raft_ports(target, [{"name": "sequencer-1"}]) == [5150]
