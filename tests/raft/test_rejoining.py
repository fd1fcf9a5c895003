"""What a member without memory takes from the others' words; then a lost disk among three on real sockets."""

import asyncio
import shutil

import pytest

from raft.journal import Journal, move_aside
from raft.rejoining import Memories, Memory, lacks_memory
from tests.raft.test_node import append, blocks, claim

OTHERS = {"b", "c", "d", "e"}


def memories(**told: Memory) -> Memories:
    found = Memories()
    for name, memory in told.items():
        found.hear(name, memory)
    return found


def knows(term: int, last_index: int = 7) -> Memory:
    return Memory(term, last_index, whole=True)


def forgot(term: int = 0, last_index: int = 1) -> Memory:
    return Memory(term, last_index, whole=False)


class TestMemories:
    def test_of_five_three_others_must_know_their_terms(self):
        assert memories(b=knows(4), c=knows(9)).term(OTHERS) is None
        assert memories(b=knows(4), c=knows(9), d=forgot(3)).term(OTHERS) is None
        assert memories(b=knows(4), c=knows(9), d=knows(3)).term(OTHERS) == 9
        assert memories(b=knows(4), c=knows(5), d=knows(3), e=forgot(9)).term(OTHERS) == 9

    @pytest.mark.parametrize(("members", "needed"), [(1, 0), (2, 1), (3, 2), (4, 2), (5, 3), (6, 3), (7, 4), (9, 5)])
    def test_every_majority_this_member_belonged_to_has_one_of_those_who_spoke(self, members, needed):
        others = [str(number) for number in range(members - 1)]
        for spoken in range(members):
            found = memories(**{name: knows(2) for name in others[:spoken]})
            assert (found.term(others) is not None) == (spoken >= needed)
        majority_without_me = members // 2
        assert needed == 0 or majority_without_me + needed > len(others)

    def test_strangers_do_not_count(self):
        assert memories(b=knows(4), x=knows(4), y=knows(4)).term(OTHERS) is None

    def test_nothing_was_ever_there_only_if_all_say_so(self):
        empty = {name: forgot() for name in OTHERS}
        assert memories(**empty).all_empty(OTHERS)
        assert memories(**{**empty, "c": knows(1, last_index=1)}).all_empty(OTHERS)
        assert not memories(**{**empty, "c": knows(1, last_index=2)}).all_empty(OTHERS)
        missing = memories(b=forgot(), c=forgot(), d=forgot())
        assert not missing.all_empty(OTHERS)
        assert missing.silent(OTHERS) == ["e"]

    def test_the_latest_word_counts(self):
        found = memories(b=forgot())
        found.hear("b", knows(3))
        assert found.term({"b"}) == 3


class TestDisk:
    def opened(self, directory) -> Journal:
        return Journal(directory, 20_000, 1, False)

    def lacks(self, directory) -> bool:
        journal = self.opened(directory)
        try:
            return lacks_memory(directory, journal)
        finally:
            journal._destroy()

    def test_an_empty_one_says_so_at_every_start_until_the_mark_is_taken_away(self, tmp_path):
        assert self.lacks(tmp_path)
        assert self.lacks(tmp_path)
        journal = self.opened(tmp_path)
        journal.setCurrentTerm(1, "b")
        journal.add(b"x", 1, 0)
        journal._destroy()
        assert self.lacks(tmp_path)
        (tmp_path / "rejoining").unlink()
        assert not self.lacks(tmp_path)

    @pytest.mark.parametrize("lost", ["vote", "log-00000001.segment"])
    def test_half_a_memory_is_none(self, lost, tmp_path):
        journal = self.opened(tmp_path)
        journal.setCurrentTerm(1, "b")
        journal.add(b"x", 1, 0)
        journal._destroy()
        assert not self.lacks(tmp_path)
        (tmp_path / lost).unlink()
        assert self.lacks(tmp_path)


class TestNodes:
    @pytest.mark.parametrize("lose", [shutil.rmtree, move_aside])
    async def test_a_lost_disk_gives_no_vote_and_is_filled_again_by_its_peers(self, lose, make_group, until):
        group = make_group()
        await group.start()
        leader = await group.leader()
        await blocks(leader, await claim(leader), 3)
        expected = leader.ledger
        forgetful, other = (node for node in group.nodes.values() if node is not leader)
        await until(lambda: forgetful.ledger == other.ledger == expected)
        await group.close()
        lose(group.directory / forgetful.node_id)
        await group.start(forgetful.node_id, other.node_id)
        await until(lambda: len(other.status()["connected"]) == 1)
        await asyncio.sleep(1.0)
        assert not forgetful.is_leader
        assert not other.is_leader
        await group.start(leader.node_id)
        again = await group.leader()
        await until(lambda: forgetful.caught_up and not forgetful.status()["rejoining"])
        assert forgetful.ledger.head == expected.head
        await append(again, await claim(again))

    async def test_a_first_start_needs_all_members_once(self, make_group, until):
        group = make_group()
        await group.start("n0", "n1")
        await until(lambda: group.nodes["n0"].status()["connected"] == ["n1"])
        await asyncio.sleep(1.0)
        assert [node.leader() for node in group.nodes.values()] == [None, None, None]
        await group.start("n2")
        await claim(await group.leader())
        await until(lambda: not any(node.status()["rejoining"] for node in group.nodes.values()))
        await group.close()
        await group.start("n0", "n1")
        await claim(await group.leader())
