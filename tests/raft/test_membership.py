"""Who the members are: overlays, cuts, snapshots; then the same on three and four nodes on real sockets."""

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from raft.ledger import Claim, Reason, Refused, Seal
from raft.local_cluster import free_ports
from raft.member import next_append
from raft.membership import ChangeRefused, MemberChange, Membership, Overlay, encode_change
from raft.node import RaftNode
from raft.settings import MEMBERS_MAX
from tests.raft.test_node import append, blocks, claim

BASE = {"n0": "h:1", "n1": "h:2", "n2": "h:3"}
TIMEOUT_S = 10.0


def added(name: str, address: str = "h:9") -> MemberChange:
    return MemberChange(name, address)


def removed(name: str) -> MemberChange:
    return MemberChange(name, None)


class TestRules:
    def test_a_change_counts_as_soon_as_it_is_in_the_log_and_no_longer_once_it_is_cut(self):
        members = Membership(BASE)
        assert not members.on_entry(b"\x00something", 4)
        assert members.on_entry(encode_change(removed("n1")), 5)
        assert members.addresses == {"n0": "h:1", "n2": "h:3"}
        assert members.version == 2
        assert not members.on_cut(6)
        assert members.on_cut(5)
        assert members.addresses == BASE
        assert members.version == 1

    def test_a_snapshot_holds_the_changes_up_to_it_and_no_others(self):
        members = Membership(BASE)
        members.on_entry(encode_change(removed("n1")), 5)
        members.on_entry(encode_change(added("n3")), 9)
        assert members.overlay(4) == Overlay()
        assert members.overlay(8) == Overlay({"n1": None}, 1)
        other = Membership({**BASE, "n2": "moved:3"})
        assert other.restore(members.overlay(8), 8, [(encode_change(added("n3")), 9, 1)])
        assert other.addresses == {"n0": "h:1", "n2": "moved:3", "n3": "h:9"}
        assert other.version == members.version == 3

    @pytest.mark.parametrize(
        ("change", "text"),
        [
            (removed("n9"), "not a member"),
            (removed("n0"), "transfer leadership first"),
            (removed("n1"), "no majority"),
            (added("n1"), "member already"),
            (added("n3", "h:2"), "has the address"),
            (added("n3", "nowhere"), "host:port"),
        ],
    )
    def test_refusals(self, change, text):
        members = Membership(BASE)
        with pytest.raises(ChangeRefused, match=text):
            members.check(change, "n0", {"n1"}, 100)
        assert members.addresses == BASE

    def test_one_change_at_a_time(self):
        members = Membership(BASE)
        members.on_entry(encode_change(added("n3")), 5)
        with pytest.raises(ChangeRefused, match="not committed yet"):
            members.check(removed("n1"), "n0", {"n1", "n2"}, 4)
        members.check(removed("n1"), "n0", {"n1", "n2", "n3"}, 5)

    def test_there_is_a_largest_group(self):
        members = Membership({f"n{number}": f"h:{number + 1}" for number in range(MEMBERS_MAX)})
        with pytest.raises(ChangeRefused, match="at most"):
            members.check(added("more", "h:99"), "n0", set(), 0)


class AnyLog(RuleBasedStateMachine):
    """However a log grew, was cut, was compacted and read again: the members are those a reader of all of it has."""

    @initialize()
    def begin(self) -> None:
        self.members = Membership(BASE)
        self.log: list[tuple[bytes, int, int]] = []

    @rule(name=st.sampled_from(["n1", "n2", "n3"]), address=st.sampled_from([None, "h:7", "h:8"]))
    def change(self, name: str, address: str | None) -> None:
        entry = (encode_change(MemberChange(name, address)), len(self.log) + 1, 1)
        self.log.append(entry)
        self.members.on_entry(entry[0], entry[1])

    @rule()
    def other_entry(self) -> None:
        self.log.append((b"\x00", len(self.log) + 1, 1))
        self.members.on_entry(b"\x00", len(self.log))

    @precondition(lambda self: self.log)
    @rule(data=st.data())
    def cut(self, data) -> None:
        index = data.draw(st.integers(1, len(self.log)))
        del self.log[index - 1 :]
        self.members.on_cut(index)

    @rule(data=st.data())
    def restart_from_a_snapshot(self, data) -> None:
        index = data.draw(st.integers(0, len(self.log)))
        kept = data.draw(st.integers(0, index))
        again = Membership(BASE)
        again.restore(self.members.overlay(index), index, self.log[kept:])
        assert (again.addresses, again.version) == (self.members.addresses, self.members.version)

    @invariant()
    def as_read_from_the_start(self) -> None:
        if not hasattr(self, "log"):
            return
        whole = Membership(BASE)
        whole.restore(Overlay(), 0, self.log)
        assert (whole.addresses, whole.version) == (self.members.addresses, self.members.version)


TestAnyLog = AnyLog.TestCase


async def grow(group, head_number: int) -> None:
    """Seal blocks until there are so many, with whoever leads; a busy machine may take leadership away in between."""
    while (leader := await group.leader()).ledger.head_number < head_number:
        view = leader.ledger
        if view.owner != leader.node_id or view.epoch != leader.term:
            await leader.propose(Claim(leader.term, leader.node_id), TIMEOUT_S)
        elif view.open is None:
            await leader.propose(next_append(view, view.epoch, leader.node_id, 100), TIMEOUT_S)
        else:
            block = view.open
            seal = Seal(view.epoch, leader.node_id, block.number, block.payload_id, block.last_index, block.block_hash)
            await leader.propose(seal, TIMEOUT_S)


class TestNodes:
    async def test_a_member_is_added_catches_up_and_counts(self, make_group, until):
        group = make_group()
        await group.start()
        leader = await group.leader()
        epoch = await claim(leader)
        await blocks(leader, epoch, 3)
        address = f"127.0.0.1:{free_ports(1)[0]}"
        newcomer = group.nodes["n3"] = RaftNode(group.settings("n3", peers={**group.peers, "n3": address}))
        await newcomer.start()
        assert await leader.change_member(added("n3", address), TIMEOUT_S) is None
        await until(lambda: newcomer.caught_up and newcomer.ledger.head_number == 3)
        assert [member.id for member in leader.members()] == ["n0", "n1", "n2", "n3"]
        assert {node.membership_version for node in group.nodes.values()} == {2}
        # Of four, three are needed: without the newcomer two old members could not commit.
        others = [node for node in group.nodes.values() if node not in (leader, newcomer)]
        await others[0].close()
        await append(leader, epoch)

    async def test_a_member_is_removed_and_counts_no_more(self, make_group, until):
        group = make_group()
        await group.start()
        leader = await group.leader()
        epoch = await claim(leader)
        gone, stays = (node for node in group.nodes.values() if node is not leader)
        assert await leader.change_member(removed(gone.node_id), TIMEOUT_S) is None
        await until(lambda: stays.membership_version == 2)
        term = leader.term
        await until(lambda: gone.leader() is None)
        await append(leader, epoch)
        assert (leader.is_leader, leader.term) == (True, term)
        refused = await leader.change_member(removed(leader.node_id), TIMEOUT_S)
        assert isinstance(refused, Refused)
        assert refused.reason == Reason.MEMBERSHIP

    async def test_a_host_is_replaced_for_good_and_everybody_restarted(self, make_group, until):
        group = make_group(compaction_entries=24, trailing_entries=8)
        await group.start()
        leader = await group.leader()
        lost = next(node for node in group.nodes.values() if node is not leader)
        await lost.close()
        assert await leader.change_member(removed(lost.node_id), TIMEOUT_S) is None
        address = f"127.0.0.1:{free_ports(1)[0]}"
        peers = {name: at for name, at in group.peers.items() if name != lost.node_id} | {"n3": address}
        assert await leader.change_member(added("n3", address), TIMEOUT_S) is None
        del group.nodes[lost.node_id]
        newcomer = group.nodes["n3"] = RaftNode(group.settings("n3", peers=peers))
        await newcomer.start()
        await until(lambda: newcomer.caught_up)
        await grow(group, 30)  # enough for snapshots: the changes are no longer in the log
        await group.close()
        await group.start()
        await grow(group, 31)
        await until(lambda: all(node.ledger.head_number == 31 for node in group.nodes.values()))
        assert {tuple(member.id for member in node.members()) for node in group.nodes.values()} == {
            tuple(sorted(peers))
        }

    async def test_followers_change_nothing(self, make_group):
        group = make_group()
        await group.start()
        leader = await group.leader()
        follower = next(node for node in group.nodes.values() if node is not leader)
        refused = await follower.change_member(removed(leader.node_id), TIMEOUT_S)
        assert isinstance(refused, Refused)
        assert refused.reason == Reason.NOT_LEADER
