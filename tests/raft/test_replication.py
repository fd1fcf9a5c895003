"""Repairs of append messages and votes: pure decisions, checked against what Raft's paper demands."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.replication import PreVotes, Repair, as_good_as, election_rank, repair_append, term_at, well_formed


def log(*terms: int, first: int = 1) -> list[tuple[bytes, int, int]]:
    """A log whose entry `first + k` has the k-th term."""
    return [(b"%d.%d" % (index, term), index, term) for index, term in enumerate(terms, first)]


def message(previous: int, previous_term: int, entries=(), *, term: int, commit: int = 1) -> dict:
    return {
        "type": "append_entries",
        "term": term,
        "commit_index": commit,
        "prevLogIdx": previous,
        "prevLogTerm": previous_term,
        "entries": [list(entry) for entry in entries],
    }


def receive(follower: list, repair: Repair) -> tuple[list, int, int | None]:
    """What the library does with a message: (log, commit bound, reported position or None)."""
    asked = repair.message
    if term_at(follower, asked["prevLogIdx"]) != asked["prevLogTerm"]:
        return follower, 0, None
    position = asked["prevLogIdx"] - follower[0][1] + 1
    kept = follower if repair.keep_suffix else follower[:position]
    kept = kept + [tuple(entry) for entry in asked["entries"]]
    reported = asked["entries"][-1][1] if asked["entries"] else asked["prevLogIdx"]
    return kept, min(asked["commit_index"], kept[-1][1]), reported


class TestAppend:
    def test_new_entries_at_the_end_pass_unchanged(self):
        given_ = message(2, 1, log(1, 1, 2)[2:], term=2)
        assert repair_append(given_, log(1, 1)) == Repair(given_, keep_suffix=False)

    def test_a_retransmission_of_what_is_there_cuts_nothing(self):
        follower = log(1, 1, 2, 2, 2)
        repair = repair_append(message(1, 1, follower[1:3], term=2), follower)
        assert receive(follower, repair)[0] == follower

    def test_a_heartbeat_with_an_older_position_cuts_nothing(self):
        follower = log(1, 1, 2, 2)
        after, _, reported = receive(follower, repair_append(message(2, 1, term=2), follower))
        assert (after, reported) == (follower, 4)

    def test_entries_of_an_earlier_term_behind_the_message_stay_but_prove_nothing(self):
        follower = log(1, 1, 1, 1)
        after, commit, reported = receive(follower, repair_append(message(2, 1, term=3, commit=9), follower))
        assert (after, commit, reported) == (follower, 2, 2)

    def test_a_conflict_cuts_the_log(self):
        follower, leader = log(1, 1, 1, 1), log(1, 1, 3)
        after, _, reported = receive(follower, repair_append(message(2, 1, leader[2:], term=3), follower))
        assert (after, reported) == (leader, 3)

    def test_a_conflict_behind_known_entries_cuts_only_there(self):
        follower, leader = log(1, 1, 2, 2), log(1, 1, 2, 3, 3)
        after, _, reported = receive(follower, repair_append(message(1, 1, leader[1:], term=3), follower))
        assert (after, reported) == (leader, 5)

    def test_a_piece_of_a_snapshot_commits_nothing(self):
        piece = {"type": "append_entries", "term": 2, "commit_index": 9, "serialized": [b"x", True, False]}
        assert repair_append(piece, log(1, 1)) == Repair({**piece, "commit_index": 0}, keep_suffix=False)

    @pytest.mark.parametrize(("previous", "term"), [(9, 1), (2, 7), (0, 1)])
    def test_a_position_the_log_does_not_have_is_left_to_the_library(self, previous, term):
        given_ = message(previous, term, term=8)
        assert repair_append(given_, log(1, 1)) == Repair(given_, keep_suffix=False)

    @given(
        st.lists(st.integers(1, 4), min_size=1, max_size=8),
        st.lists(st.integers(1, 4), max_size=6),
        st.data(),
    )
    def test_whatever_arrives_the_log_agrees_with_the_leader_as_far_as_it_reports(self, shared, own, data):
        """Leader and follower share a prefix, then differ by term; any window of the leader's log may arrive."""
        shared = sorted(shared)
        leader_term = 5
        leader = log(*shared, *([leader_term] * data.draw(st.integers(0, 4))))
        follower = log(*shared, *sorted(max(term, shared[-1]) for term in own))
        if data.draw(st.booleans()):
            follower = leader[: data.draw(st.integers(1, len(leader)))]
        start = data.draw(st.integers(0, len(leader) - 1))
        end = data.draw(st.integers(start, len(leader) - 1))
        commit = data.draw(st.integers(1, len(leader)))
        _, previous, previous_term = leader[start]
        arrived = message(previous, previous_term, leader[start + 1 : end + 1], term=leader_term, commit=commit)
        after, committed, reported = receive(follower, repair_append(arrived, follower))
        if reported is None:
            assert after == follower
            return
        assert after[:reported] == leader[:reported], "what is reported as agreed agrees"
        assert after[:committed] == leader[:committed], "only what agrees is committed"
        agreeing = next(
            (k for k, (mine, theirs) in enumerate(zip(follower, leader, strict=False)) if mine != theirs), 99
        )
        assert after[: min(agreeing, len(follower))] == follower[:agreeing], "nothing that agreed was cut"


class TestVotes:
    @pytest.mark.parametrize(
        ("candidate", "good"), [((2, 1), True), ((1, 9), False), ((1, 3), False), ((2, 3), True), ((1, 4), False)]
    )
    def test_a_later_last_term_wins_and_then_the_longer_log(self, candidate, good):
        assert as_good_as(*candidate, log(1, 1, 2, first=-1)) is good

    def test_equal_logs_are_good_enough(self):
        assert as_good_as(2, 3, log(1, 1, 2))
        assert not as_good_as(2, 2, log(1, 1, 2))

    def test_survivors_stand_for_election_in_the_order_of_their_names(self):
        assert election_rank("b", "a", {"c", "d", "e"}) == 0
        assert election_rank("e", "a", {"b", "c", "d"}) == 3
        assert election_rank("e", "a", {"d"}) == 1
        assert election_rank("b", "c", {"a", "c"}) == 1


class TestPreVotes:
    def test_a_majority_wins_once_and_is_used_once(self):
        votes = PreVotes(5, favour_s=0.05)
        asked = votes.begin(10.0, "a")
        assert [votes.grant(name, asked, heard_leader_at=0.0) for name in "bbcd"] == [False, False, True, False]
        assert (votes.take(), votes.take()) == (True, False)

    def test_answers_to_an_earlier_round_do_not_count(self):
        votes = PreVotes(3, favour_s=0.05)
        old = votes.begin(10.0, "a")
        votes.begin(11.0, "a")
        assert not votes.grant("b", old, heard_leader_at=0.0)
        assert not votes.take()

    def test_a_leader_heard_of_meanwhile_ends_the_round(self):
        votes = PreVotes(3, favour_s=0.05)
        asked = votes.begin(10.0, "a")
        assert not votes.grant("b", asked, heard_leader_at=10.1)
        assert not votes.take()

    def test_a_victory_is_void_once_a_leader_is_there(self):
        votes = PreVotes(3, favour_s=0.05)
        assert votes.grant("b", votes.begin(10.0, "a"), heard_leader_at=0.0)
        votes.abandon()
        assert not votes.take()

    def test_one_candidate_is_favoured_for_a_moment(self):
        votes = PreVotes(3, favour_s=0.05)
        assert votes.favour("b", 10.0)
        assert not votes.favour("c", 10.04)
        assert votes.favour("b", 10.04)
        assert votes.favour("c", 10.10)

    def test_of_two_that_ask_each_other_one_withdraws(self):
        first, second = PreVotes(3, favour_s=0.05), PreVotes(3, favour_s=0.05)
        asked = first.begin(10.0, "a")
        withdrawn = second.begin(10.0, "b")
        assert not first.favour("b", 10.01)
        assert second.favour("a", 10.01)
        assert first.grant("b", asked, heard_leader_at=0.0)
        assert not second.grant("c", withdrawn, heard_leader_at=0.0)

    def test_whoever_has_won_withdraws_no_more(self):
        votes = PreVotes(3, favour_s=0.05)
        assert votes.grant("c", votes.begin(10.0, "b"), heard_leader_at=0.0)
        assert not votes.favour("a", 10.01)
        assert votes.favour("a", 10.10)

    def test_a_new_round_forgets_a_victory(self):
        votes = PreVotes(3, favour_s=0.05)
        assert votes.grant("b", votes.begin(10.0, "a"), heard_leader_at=0.0)
        votes.begin(11.0, "a")
        assert not votes.take()

    def test_rounds_are_counted_until_a_leader_is_there(self):
        votes = PreVotes(3, favour_s=0.05)
        for number in (1, 2, 3):
            votes.begin(10.0 + number, "a")
            assert votes.rounds == number
        votes.abandon()
        assert votes.rounds == 0


class TestMessages:
    @pytest.mark.parametrize(
        "good",
        [
            message(1, 1, log(1), term=1),
            message(1, 1, term=1),
            {**message(1, 1, term=1), "prevLogIdx": None, "prevLogTerm": None},
            {"type": "append_entries", "term": 1, "commit_index": 1, "serialized": None},
            {"type": "append_entries", "term": 1, "commit_index": 1, "serialized": [b"", True, False]},
            {"type": "request_vote", "term": 1, "last_log_index": 1, "last_log_term": 1},
            {"type": "higher_term", "term": 3},
        ],
    )
    def test_the_groups_messages_are_well_formed(self, good):
        assert well_formed(good)

    @pytest.mark.parametrize(
        "bad",
        [
            {},
            {"type": 5},
            {"type": "apply_command", "command": b"x"},
            {"type": "request_vote", "term": "1", "last_log_index": 1, "last_log_term": 1},
            {"type": "request_vote", "term": True, "last_log_index": 1, "last_log_term": 1},
            {"type": "response_vote"},
            {**message(1, 1, term=1), "entries": [[b"x", 1]]},
            {**message(1, 1, term=1), "entries": [["x", 1, 1]]},
            {**message(1, 1, term=1), "entries": None},
            {**message(1, 1, term=1), "prevLogIdx": "1"},
            {**message(1, 1, term=1), "transmission": "start"},
            {"type": "append_entries", "term": 1, "commit_index": 1, "serialized": [b"", 1, 0]},
        ],
    )
    def test_anything_else_is_not(self, bad):
        assert not well_formed(bad)
