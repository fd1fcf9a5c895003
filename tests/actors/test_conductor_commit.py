"""Payloads into the ledger: which command they become, and what an operator's override leaves behind."""

from pathlib import Path

import msgspec
import pytest
import structlog

from actors.conductor_commit import (
    READMITTED_WITH_FLASHBLOCKS_MAX,
    Adoption,
    append_command,
    appended_frame,
    readmission,
    seal_command,
)
from flashblocks.conductor.publishing import open_frames
from flashblocks.wire.engine import Envelope, envelope_to_bytes
from raft.alone import AloneLedger, appends, seal
from raft.commands import TRACE_CONTEXT_CHARACTERS_MAX, Accepted, Appended, Claim, Seal, SealBlock
from raft.node import RaftNode
from raft.settings import RaftSettings
from tests.actors.group_under_test import free_ports, until
from tests.conductor.ledgers import GENESIS, NODE, Chain


def open_chain() -> Chain:
    chain = Chain(epoch=3)
    chain.blocks(1)
    chain.flashblocks(2)
    return chain


def test_a_frame_comes_out_of_the_ledger_as_it_went_in() -> None:
    chain = open_chain()
    frame = open_frames(chain.ledger.view)[1]
    chain = Chain(epoch=3)
    chain.blocks(1)
    chain.flashblocks(1)
    answer, events = chain.ledger.apply(append_command(3, NODE, frame))
    assert isinstance(answer, Accepted)
    assert [appended_frame(event) for event in events if isinstance(event, Appended)] == [frame]


def test_a_trace_context_too_long_for_the_ledger_is_left_out() -> None:
    frame = open_frames(open_chain().ledger.view)[1]
    longest = "x" * TRACE_CONTEXT_CHARACTERS_MAX
    for told, kept in ((longest, longest), (longest + "x", "")):
        assert append_command(3, NODE, msgspec.structs.replace(frame, traceparent=told)).traceparent == kept


def test_the_open_blocks_own_payload_is_sealed_by_reference() -> None:
    chain = open_chain()
    block = chain.ledger.open
    assert seal_command(chain.ledger.view, 3, NODE, chain.envelopes[2]) == Seal(
        3, NODE, 2, block.payload_id, 1, block.block_hash
    )


@pytest.mark.parametrize("change", [{"state_root": b"\x66" * 32}, {"transactions": ()}, {"block_hash": b"\x66" * 32}])
def test_any_other_payload_of_the_open_block_has_to_be_sealed_again(change: dict) -> None:
    chain = open_chain()
    right = chain.envelopes[2]
    wrong = Envelope(right.parent_beacon_block_root, msgspec.structs.replace(right.payload, **change))
    assert seal_command(chain.ledger.view, 3, NODE, wrong) is None


def test_where_nothing_is_committed_the_payload_goes_in_whole() -> None:
    chain = Chain(epoch=3)
    chain.fallback()
    envelope = chain.envelopes[1]
    chain = Chain(epoch=3)
    command = seal_command(chain.ledger.view, 3, NODE, envelope)
    assert isinstance(command, SealBlock)
    assert (command.number, command.parent_hash, command.payload) == (1, GENESIS, envelope_to_bytes(envelope))


async def test_what_was_made_alone_is_the_majoritys_chain_after_it_is_taken_in() -> None:
    blocks = READMITTED_WITH_FLASHBLOCKS_MAX + 5
    real, made = open_chain(), open_chain()
    alone = AloneLedger(real.ledger.view, [], "b")
    made.blocks(blocks)
    made.fallback()
    made.flashblocks(3)
    for block in made.ledger.view.sealed_blocks[1:]:
        for command in [*appends(block, 3, NODE), seal(block, 3, NODE)] if not block.fallback else [whole(block)]:
            assert isinstance(alone.apply(command)[0], Accepted), command
    for command in appends(made.ledger.open, 3, NODE):
        alone.apply(command)
    assert alone.view.head == made.ledger.head

    async def fetch(number: int) -> None:
        raise AssertionError(f"block {number} is kept")

    real.ledger.apply(Claim(9, "b"))
    asked = [command async for _, command in readmission(alone, 2, 9, "b", fetch)]
    assert all(isinstance(real.ledger.apply(command)[0], Accepted) for command in asked)
    real.ledger.check()
    assert real.ledger.head == made.ledger.head
    assert real.ledger.open.block_hash == made.ledger.open.block_hash
    by_flashblocks = [block.number for block in real.ledger.view.sealed_blocks if not block.fallback]
    last = made.ledger.head[0]
    assert by_flashblocks == [1, 2, *range(last - READMITTED_WITH_FLASHBLOCKS_MAX + 1, last)]


def whole(block) -> SealBlock:
    return SealBlock(3, NODE, block.number, block.parent_hash, block.block_hash, block.payload)


def single_node(directory: Path) -> RaftNode:
    return RaftNode(
        RaftSettings(
            node_id=NODE,
            peers={NODE: f"127.0.0.1:{free_ports(1)[0]}"},
            data_dir=directory,
            password=b"p" * 32,
            genesis_number=0,
            genesis_hash=GENESIS,
        )
    )


class Blocks:
    """Stands for the execution client: what it has beyond the ledger."""

    def __init__(self, envelopes: dict[int, Envelope]) -> None:
        self._envelopes = envelopes

    async def fetch(self, number: int) -> Envelope | None:
        return self._envelopes.get(number)

    async def close(self) -> None:
        pass


@pytest.mark.parametrize(("missing", "adopted", "head"), [(None, True, 3), (2, False, 1)])
async def test_blocks_made_under_an_override_are_adopted_in_order(
    tmp_path: Path, missing: int | None, adopted: bool, head: int
) -> None:
    made = Chain()
    for _ in range(3):
        made.fallback()
    envelopes = {number: envelope for number, envelope in made.envelopes.items() if number != missing}
    node = single_node(tmp_path)
    await node.start()
    try:
        await until(lambda: node.is_leader, "the only node leads")
        await node.propose(Claim(5, NODE), 5.0)
        adoption = Adoption(node, NODE, "", structlog.get_logger())
        adoption._blocks = Blocks(envelopes)
        assert await adoption.adopt(5, 3) is adopted
        assert node.ledger.head_number == head
        await adoption.close()
    finally:
        await node.close()
