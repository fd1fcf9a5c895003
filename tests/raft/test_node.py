"""One Raft node as an asyncio program sees it: three members in this process, on real sockets."""

import asyncio
import hashlib
import os
import socket
import threading

import pytest

from raft.channel import HELLO_BYTES
from raft.journal import JournalDamaged, move_aside
from raft.ledger import Accepted, Append, Appended, Claim, Claimed, Reason, Refused, Restored, Seal, Sealed
from raft.member import next_append
from raft.node import RaftNode, Transferred, Unknown
from raft.settings import RaftSettings

TIMEOUT_S = 10.0


async def claim(node: RaftNode) -> int:
    epoch = node.term
    assert isinstance(await node.propose(Claim(epoch, node.node_id), TIMEOUT_S), Accepted)
    return epoch


async def append(node: RaftNode, epoch: int, body_bytes: int = 100) -> Append:
    command = next_append(node.ledger, epoch, node.node_id, body_bytes)
    assert await node.propose(command, TIMEOUT_S) == Accepted()
    return command


async def seal(node: RaftNode, epoch: int) -> None:
    block = node.ledger.open
    assert block is not None
    command = Seal(epoch, node.node_id, block.number, block.payload_id, block.last_index, block.block_hash)
    assert await node.propose(command, TIMEOUT_S) == Accepted()


async def blocks(node: RaftNode, epoch: int, number: int, body_bytes: int = 100) -> None:
    for _ in range(number):
        await append(node, epoch, body_bytes)
        await seal(node, epoch)


class TestProposals:
    async def test_a_leader_gets_the_ledgers_answer_and_everybody_the_event(self, make_group, until):
        group = make_group()
        told: dict[str, list] = {name: [] for name in group.nodes}
        for name, node in group.nodes.items():
            node.on_event(lambda event, replayed, name=name: told[name].append((type(event), replayed)))
        await group.start()
        leader = await group.leader()
        epoch = await claim(leader)
        command = await append(leader, epoch)
        await seal(leader, epoch)
        await until(lambda: all(len(events) == 3 for events in told.values()))
        assert set(map(tuple, told.values())) == {((Claimed, False), (Appended, False), (Sealed, False))}
        block = leader.ledger.sealed(1)
        assert block is not None
        assert block.entries[0].body == command.body
        assert await leader.propose(command, TIMEOUT_S) == Accepted(duplicate=True)

    async def test_the_ledgers_refusal_reaches_the_proposer(self, make_group):
        group = make_group()
        await group.start()
        leader = await group.leader()
        outcome = await leader.propose(next_append(leader.ledger, 99, leader.node_id, 10), TIMEOUT_S)
        assert isinstance(outcome, Refused)
        assert outcome.reason == Reason.UNCLAIMED_EPOCH

    async def test_a_follower_refuses_and_forwards_nothing(self, make_group):
        group = make_group()
        await group.start()
        leader = await group.leader()
        follower = next(node for node in group.nodes.values() if node is not leader)
        outcome = await follower.propose(Claim(50, follower.node_id), TIMEOUT_S)
        assert isinstance(outcome, Refused)
        assert outcome.reason == Reason.NOT_LEADER
        await claim(leader)
        assert leader.ledger.owner == leader.node_id

    async def test_without_a_majority_the_outcome_is_unknown_and_the_command_may_still_be_committed(
        self, make_group, until
    ):
        group = make_group()
        await group.start()
        leader = await group.leader()
        others = [node for node in group.nodes.values() if node is not leader]
        for node in others:
            await node.close()
        outcome = await leader.propose(Claim(leader.term, leader.node_id), 0.05)
        assert isinstance(outcome, Unknown | Refused)
        assert not isinstance(outcome, Refused) or outcome.reason == Reason.NOT_LEADER
        await until(lambda: not leader.is_leader)

    async def test_what_waits_when_leadership_is_lost_is_unknown_at_once(self, make_group):
        group = make_group()
        await group.start()
        leader = await group.leader()
        for node in group.nodes.values():
            if node is not leader:
                await node.close()
        proposals = [leader.propose(Claim(leader.term, leader.node_id), 60.0) for _ in range(3)]
        outcomes = await asyncio.wait_for(asyncio.gather(*proposals), TIMEOUT_S)
        assert all(isinstance(outcome, Unknown | Refused) for outcome in outcomes)
        assert Unknown("leadership_lost") in outcomes or all(isinstance(outcome, Refused) for outcome in outcomes)

    async def test_a_command_above_the_cap_is_refused_before_it_is_sent(self, make_group):
        group = make_group()
        await group.start()
        leader = await group.leader()
        body = bytes(8 * 1024 * 1024)
        command = Append(1, "x", bytes(8), 1, 0, bytes(32), bytes(32), hashlib.sha256(body).digest(), body)
        outcome = await leader.propose(command, TIMEOUT_S)
        assert isinstance(outcome, Refused)
        assert outcome.reason == Reason.TOO_LARGE

    async def test_a_7_mb_entry_is_committed_by_all(self, make_group, until):
        group = make_group()
        await group.start()
        leader = await group.leader()
        await append(leader, await claim(leader), body_bytes=7_000_000)
        await until(lambda: all(node.ledger == leader.ledger for node in group.nodes.values()))
        assert leader.is_leader

    async def test_proposals_before_start_and_after_close_are_refused(self, make_group):
        group = make_group(1)
        node = group.nodes["n0"]
        assert isinstance(await node.propose(Claim(1, "n0"), TIMEOUT_S), Refused)
        await group.start()
        await group.leader()
        await node.close()
        assert isinstance(await node.propose(Claim(1, "n0"), TIMEOUT_S), Refused)
        assert node.status()["role"] == "stopped"


class TestLeadership:
    async def test_callbacks_tell_every_change_with_its_term(self, make_group, until):
        group = make_group()
        told: list = []
        for name, node in group.nodes.items():
            node.on_leadership(lambda leading, term, name=name: told.append((name, leading, term)))
        await group.start()
        leader = await group.leader()
        await until(lambda: bool(told))
        assert told == [(leader.node_id, True, leader.term)]
        outcome = await leader.transfer_leadership(None, TIMEOUT_S)
        assert isinstance(outcome, Transferred)
        await until(lambda: len(told) == 3)
        assert (leader.node_id, False, outcome.term) in told
        assert (outcome.leader, True, outcome.term) in told

    async def test_a_transfer_to_a_named_member_makes_it_the_leader(self, make_group):
        group = make_group()
        await group.start()
        leader = await group.leader()
        epoch = await claim(leader)
        await append(leader, epoch)
        target = next(name for name in group.nodes if name != leader.node_id)
        outcome = await leader.transfer_leadership(target, TIMEOUT_S)
        assert isinstance(outcome, Transferred)
        assert outcome.leader == target
        successor = await group.leader()
        assert successor.node_id == target
        await append(successor, await claim(successor))
        stale = next_append(leader.ledger, epoch, leader.node_id, 10)
        assert isinstance(await leader.propose(stale, TIMEOUT_S), Refused)

    async def test_a_transfer_is_refused_by_a_follower_and_to_a_stranger(self, make_group):
        group = make_group()
        await group.start()
        leader = await group.leader()
        follower = next(node for node in group.nodes.values() if node is not leader)
        for node, target, reason in (
            (follower, None, Reason.NOT_LEADER),
            (leader, "stranger", Reason.UNKNOWN_TARGET),
            (leader, leader.node_id, Reason.UNKNOWN_TARGET),
        ):
            outcome = await node.transfer_leadership(target, TIMEOUT_S)
            assert isinstance(outcome, Refused)
            assert outcome.reason == reason

    async def test_a_transfer_to_a_member_that_is_away_is_refused_and_leadership_stays(self, make_group):
        group = make_group()
        await group.start()
        leader = await group.leader()
        epoch = await claim(leader)
        away = next(node for node in group.nodes.values() if node is not leader)
        await away.close()
        await append(leader, epoch)
        outcome = await leader.transfer_leadership(away.node_id, 0.2)
        assert isinstance(outcome, Refused)
        assert outcome.reason == Reason.NOT_CAUGHT_UP
        await append(leader, epoch)

    async def test_a_transfer_to_a_member_that_is_level_but_away_is_refused(self, make_group, until):
        group = make_group()
        await group.start()
        leader = await group.leader()
        await claim(leader)
        await until(lambda: all(member.lag_entries == 0 for member in leader.members()))
        away = next(name for name in group.nodes if name != leader.node_id)
        await group.nodes[away].close()
        await until(lambda: away not in leader.status()["connected"])
        outcome = await leader.transfer_leadership(away, 0.2)
        assert isinstance(outcome, Refused)
        assert outcome.reason == Reason.NOT_CAUGHT_UP
        assert leader.is_leader

    async def test_members_may_be_addressed_by_host_name(self, make_group):
        group = make_group()
        named = {name: address.replace("127.0.0.1", "localhost") for name, address in group.peers.items()}
        for name in group.nodes:
            group.nodes[name] = RaftNode(group.settings(name, peers=named, listen=group.peers[name]))
        await group.start()
        leader = await group.leader()
        await append(leader, await claim(leader))

    async def test_a_returning_member_does_not_depose_the_leader(self, make_group, until):
        group = make_group()
        await group.start()
        leader = await group.leader()
        term = leader.term
        for node in group.nodes.values():
            if node is not leader:
                await node.close()
                await node.start()
                await until(lambda node=node: node.caught_up)
        assert leader.is_leader
        assert leader.term == term

    async def test_status_and_members_describe_the_group(self, make_group, until):
        group = make_group()
        await group.start()
        leader = await group.leader()
        await claim(leader)
        await until(lambda: all(member.lag_entries == 0 for member in leader.members()))
        members = leader.members()
        assert [(member.id, member.address) for member in members] == sorted(group.peers.items())
        assert all(member.voter and member.connected for member in members)
        status = leader.status()
        assert (status["role"], status["leader"], status["epoch"]) == ("leader", leader.node_id, leader.term)
        assert status["connected"] == sorted(set(group.peers) - {leader.node_id})
        await until(lambda: leader.status()["last_applied"] == leader.status()["last_index"])


class TestRestart:
    async def test_the_journal_rebuilds_the_ledger_and_says_so(self, make_group, until):
        group = make_group()
        await group.start()
        leader = await group.leader()
        await blocks(leader, await claim(leader), 3)
        before = leader.ledger
        await until(lambda: all(node.ledger == before for node in group.nodes.values()))
        await group.close()
        told: list = []
        group.nodes["n1"].on_event(lambda event, replayed: told.append((type(event), replayed)))
        await group.start()
        await group.leader()
        await until(lambda: all(node.ledger == before for node in group.nodes.values()) and len(told) == 7)
        assert told == [(Claimed, True)] + [(Appended, True), (Sealed, True)] * 3

    async def test_a_node_that_was_away_catches_up_and_knows_old_from_new(self, make_group, until):
        group = make_group()
        await group.start()
        leader = await group.leader()
        epoch = await claim(leader)
        away = next(node for node in group.nodes.values() if node is not leader)
        await until(lambda: away.ledger.epoch == epoch)
        await away.close()
        await blocks(leader, epoch, 2)
        told: list = []
        away.on_event(lambda event, replayed: told.append((type(event), replayed)))
        await away.start()
        await until(lambda: away.caught_up and away.ledger == leader.ledger)
        await append(leader, epoch)
        await until(lambda: len(told) == 6)  # what is told comes a moment after the ledger has it
        assert told == [(Claimed, True)] + [(Appended, True), (Sealed, True)] * 2 + [(Appended, False)]

    async def test_compaction_bounds_the_log_and_a_node_far_behind_gets_a_snapshot(self, make_group, until):
        group = make_group(compaction_entries=30, trailing_entries=10)
        await group.start()
        leader = await group.leader()
        epoch = await claim(leader)
        away = next(node for node in group.nodes.values() if node is not leader)
        await away.close()
        await blocks(leader, epoch, 60, body_bytes=20_000)
        await until(lambda: leader.status()["log_entries"] <= 40)
        segments = list((group.directory / leader.node_id).glob("log-*.segment"))
        assert len(segments) <= 3
        told: list = []
        away.on_event(lambda event, replayed: told.append((type(event), replayed)))
        await away.start()
        await until(lambda: away.caught_up and away.ledger == leader.ledger)
        await until(lambda: (Restored, True) in told)
        await append(leader, epoch)
        await until(lambda: away.ledger == leader.ledger)
        expected = leader.ledger
        await group.close()
        await group.start()
        await group.leader()
        await until(lambda: all(node.ledger == expected for node in group.nodes.values()))

    async def test_a_damaged_journal_is_refused_and_the_node_rejoins_from_its_peers(self, make_group, until):
        group = make_group()
        await group.start()
        leader = await group.leader()
        epoch = await claim(leader)
        await blocks(leader, epoch, 3)
        victim = next(node for node in group.nodes.values() if node is not leader)
        await until(lambda: victim.ledger == leader.ledger)
        await victim.close()
        segment = next((group.directory / victim.node_id).glob("log-*.segment"))
        data = bytearray(segment.read_bytes())
        data[200] ^= 0x10
        segment.write_bytes(data)
        with pytest.raises(JournalDamaged, match="damaged"):
            await victim.start()
        aside = move_aside(group.directory / victim.node_id)
        assert (aside / segment.name).exists()
        await victim.start()
        await until(lambda: victim.caught_up and victim.ledger == leader.ledger)
        await until(lambda: victim.status()["rejoining"] is False)
        assert leader.is_leader

    async def test_a_rejoining_node_gives_no_vote(self, make_group):
        group = make_group()
        await group.start()
        leader = await group.leader()
        await claim(leader)
        amnesiac, other = (node for node in group.nodes.values() if node is not leader)
        await amnesiac.close()
        await other.close()
        await leader.close()
        move_aside(group.directory / amnesiac.node_id)
        await group.start(amnesiac.node_id, other.node_id)
        await asyncio.sleep(1.0)
        assert not amnesiac.is_leader
        assert not other.is_leader
        await group.start(leader.node_id)
        await group.leader()


class TestStarting:
    async def test_a_second_process_cannot_open_the_same_directory(self, make_group):
        group = make_group(1)
        await group.start()
        twin = RaftNode(group.settings("n0"))
        with pytest.raises(OSError, match="in use"):
            await twin.start()

    async def test_a_port_in_use_is_an_error_and_leaves_nothing(self, make_group):
        group = make_group(1)
        host, port = group.peers["n0"].split(":")
        with socket.socket() as blocker:
            blocker.bind((host, int(port)))
            blocker.listen()
            with pytest.raises(OSError, match="in use"):
                await group.start()
        await group.start()
        await group.leader()

    async def test_closing_twice_leaves_no_thread_and_no_port(self, make_group):
        group = make_group(1)
        descriptors = len(os.listdir("/proc/self/fd"))
        for _ in range(3):
            await group.start()
            await group.leader()
            await group.close()
            await group.close()
        assert [thread.name for thread in threading.enumerate() if thread.name.startswith("raft")] == []
        assert len(os.listdir("/proc/self/fd")) <= descriptors + 1
        host, port = group.peers["n0"].split(":")
        with socket.socket() as free:
            free.bind((host, int(port)))

    async def test_a_full_disk_stops_the_node_with_a_clear_word(self, make_group, until, monkeypatch):
        group = make_group(1, segment_bytes=20_000)
        node = group.nodes["n0"]
        faults: list[str] = []
        node.on_fault(faults.append)
        await group.start()
        await group.leader()
        epoch = await claim(node)
        free = os.statvfs_result((4096, 4096, 10, 0, 0, 10, 10, 10, 0, 255))
        monkeypatch.setattr("raft.journal.os.statvfs", lambda path: free)
        outcome = await node.propose(next_append(node.ledger, epoch, "n0", 50_000), TIMEOUT_S)
        assert outcome == Unknown("closed")
        await until(lambda: bool(faults))
        assert "JournalFull" in faults[0]
        assert node.fault == faults[0]
        assert not node.is_leader
        monkeypatch.undo()
        await node.close()
        await node.start()
        await group.leader()
        assert node.ledger.epoch == epoch


class TestStrangers:
    async def test_a_stranger_gets_a_hello_and_nothing_else(self, make_group, until):
        group = make_group()
        await group.start()
        leader = await group.leader()
        reader, writer = await asyncio.open_connection(*group.peers[leader.node_id].split(":"))
        assert len(await reader.readexactly(HELLO_BYTES)) == HELLO_BYTES
        writer.write(b"\x80\x05cos\nsystem\n(S'true'\ntR." + bytes(200))
        assert await reader.read() == b""
        writer.close()
        await writer.wait_closed()
        await until(lambda: leader.status()["rejected_connections"] == 1)
        assert leader.is_leader

    async def test_a_member_with_another_secret_is_not_let_in(self, make_group):
        group = make_group()
        await group.start()
        await group.leader()
        await group.nodes["n2"].close()
        group.nodes["n2"] = RaftNode(group.settings("n2", password=os.urandom(32)))
        await group.start("n2")
        await asyncio.sleep(0.5)
        leader = await group.leader()
        assert "n2" not in leader.status()["connected"]
        assert group.nodes["n2"].status()["connected"] == []
        assert group.nodes["n2"].leader() is None

    async def test_a_member_of_another_chain_is_not_let_in(self, make_group):
        group = make_group()
        await group.start()
        await group.leader()
        await group.nodes["n2"].close()
        group.nodes["n2"] = RaftNode(group.settings("n2", genesis_hash=b"\x01" * 32))
        await group.start("n2")
        await asyncio.sleep(0.5)
        leader = await group.leader()
        assert "n2" not in leader.status()["connected"]


def test_settings_type_is_what_the_node_takes(tmp_path):
    settings = RaftSettings(
        node_id="a",
        peers={"a": "127.0.0.1:1"},
        data_dir=tmp_path,
        password=bytes(32),
        genesis_number=7,
        genesis_hash=b"\x07" * 32,
    )
    node = RaftNode(settings)
    assert node.ledger.head == (7, b"\x07" * 32)
    assert (node.is_leader, node.leader(), node.caught_up, node.fault, node.term) == (False, None, False, None, 0)


async def test_the_whole_log_has_what_no_majority_confirmed(make_group, until):
    group = make_group()
    await group.start()
    leader = await group.leader()
    epoch = await claim(leader)
    await append(leader, epoch)
    for name, node in group.nodes.items():
        if name != leader.node_id:
            await node.close()
    command = next_append(leader.ledger, epoch, leader.node_id, 100)
    outcome = await leader.propose(command, 0.2)
    assert not isinstance(outcome, Accepted)
    view, log = await leader.whole_log()
    assert view.open is not None and view.open.last_index == 0
    assert [one for one in log if isinstance(one, Append)] == ([command] if isinstance(outcome, Unknown) else [])
