"""The stand-in for the EVM gives the verdicts of the real follower."""

import msgspec
import pytest

from chaos.simulation.blocks import (
    GENESIS_STATE,
    InvalidTransaction,
    envelope_of,
    execute,
    flashblock,
    frame_of,
    header_of,
    opened,
    transfer,
)
from chaos.simulation.consensus import GENESIS_HASH
from chaos.simulation.execution import ChainDisk, FallbackEl
from chaos.simulation.kernel import Clock, Process
from chaos.simulation.network import CallRefused, Network
from flashblocks.preconf.intake import arrival_of
from flashblocks.rollup_boost.facts import Status
from flashblocks.sequencing.attributes import next_attributes
from flashblocks.sequencing.origin import select_origin
from flashblocks.sequencing.references import L2BlockRef, reference_of_payload
from flashblocks.wire.payload_id import payload_id
from tests.sequencing.chain import CONFIG, GENESIS_TIME, L1

CHAIN = msgspec.structs.replace(CONFIG, genesis_hash=GENESIS_HASH)
GENESIS = L2BlockRef(
    hash=GENESIS_HASH,
    number=0,
    parent_hash=bytes(32),
    timestamp=GENESIS_TIME,
    l1_origin=CHAIN.genesis_l1,
    sequence_number=0,
)
ATTRIBUTES = next_attributes(CHAIN, L1, GENESIS, select_origin(CHAIN, L1, GENESIS, GENESIS_TIME + 2.0))
NAME = payload_id(GENESIS_HASH, ATTRIBUTES)
HEADER = header_of(1, GENESIS_HASH, ATTRIBUTES)
BATCHES = (ATTRIBUTES.transactions, (transfer(1, 0), transfer(2, 0)), (), (transfer(1, 1),))


def flashblocks(batches=BATCHES):
    state, count, made = GENESIS_STATE, 0, []
    for index, batch in enumerate(batches):
        state, count = execute(state, batch), count + len(batch)
        made.append(opened(frame_of(flashblock(HEADER, NAME, index, state, count, batch), GENESIS_HASH).body))
    return made


@pytest.fixture
def client():
    clock = Clock(1)
    network = Network(clock)
    make = lambda process, disk: FallbackEl(network, process, disk, ["el"])  # noqa: E731
    slot = network.add("el", "host", make, ChainDisk().begin(GENESIS_TIME))
    slot.start()
    return slot.component


def statuses(client, made, committed=False):
    return [client.apply(one, committed=committed)[0] for one in made]


def test_flashblocks_in_order_are_valid_and_the_same_again_is_a_duplicate(client):
    made = flashblocks()
    assert statuses(client, made) == [Status.VALID] * 4
    assert statuses(client, made) == [Status.DUPLICATE] * 4


def test_what_comes_too_early_is_a_gap_and_an_unknown_parent_is_said_so(client):
    made = flashblocks()
    assert client.apply(made[2], committed=False)[:2] == (Status.GAP, 0)
    stranger = msgspec.structs.replace(made[0], base=msgspec.structs.replace(made[0].base, parent_hash=b"x" * 32))
    assert client.apply(stranger, committed=False)[0] is Status.UNKNOWN_PARENT


def test_a_false_root_or_a_used_nonce_is_invalid_and_changes_nothing(client):
    made = flashblocks()
    statuses(client, made[:2])
    lie = msgspec.structs.replace(made[2], diff=msgspec.structs.replace(made[2].diff, state_root=b"r" * 32))
    assert client.apply(lie, committed=False)[0] is Status.INVALID
    again = msgspec.structs.replace(made[2], diff=msgspec.structs.replace(made[2].diff, transactions=(transfer(1, 0),)))
    assert client.apply(again, committed=False)[0] is Status.INVALID
    assert client.apply(made[2], committed=False)[0] is Status.VALID


def test_a_committed_flashblock_replaces_a_seen_one_and_never_the_other_way_round(client):
    ours, theirs = flashblocks(), flashblocks((BATCHES[0], (transfer(3, 0),), (transfer(3, 1),)))
    statuses(client, ours)
    assert client.apply(theirs[1], committed=True)[0] is Status.VALID
    assert client.apply(ours[1], committed=False)[0] is Status.INVALID
    assert client.apply(ours[2], committed=False)[0] is Status.INVALID, "it stood on what was replaced"
    assert client.apply(theirs[2], committed=True)[0] is Status.VALID


def test_a_followed_block_joins_the_chain_and_a_whole_one_is_executed(client):
    made = flashblocks()
    envelope = envelope_of(made)
    assert client.take(envelope) == "VALID", "nothing of it was followed"
    assert client.forkchoice(envelope.payload.block_hash) == ("VALID", None)
    assert client.head.number == 1 and client.head.state.nonces == {1: 2, 2: 1}
    other = msgspec.structs.replace(envelope.payload, transactions=envelope.payload.transactions[:-1])
    assert client.take(msgspec.structs.replace(envelope, payload=other)) == "VALID", "the hash is known already"
    bad = msgspec.structs.replace(other, block_hash=b"b" * 32)
    assert client.take(msgspec.structs.replace(envelope, payload=bad)) == "INVALID"


def test_the_chain_outlives_the_process_and_followed_flashblocks_do_not(client):
    made = flashblocks()
    statuses(client, made)
    client.forkchoice(envelope_of(made[:2]).payload.block_hash)
    network = client.network
    again = FallbackEl(network, Process(network.clock, "el", "host"), client.disk, ["el"])
    assert again.head.number == 1 and again.followed == {}


def test_a_build_takes_what_fits_from_the_pool_and_nothing_twice(client):
    for raw in (transfer(1, 0), transfer(1, 2), transfer(2, 0)):
        client.submit(raw)
    status, name = client.forkchoice(GENESIS_HASH, ATTRIBUTES)
    assert (status, name) == ("VALID", NAME)
    envelope = client.get_payload(name)
    assert envelope.payload.transactions == (*ATTRIBUTES.transactions, transfer(1, 0), transfer(2, 0))
    assert reference_of_payload(envelope.payload).number == 1
    frames = client.payload_as_flashblocks(name)
    assert [frame.index for frame, _ in frames] == [0, 1]
    assert envelope_of([one for _, one in frames]) == envelope
    with pytest.raises(CallRefused):
        client.get_payload(b"12345678")


def test_the_fallback_stands_in_behind_what_it_has_followed(client):
    client.forkchoice(GENESIS_HASH, ATTRIBUTES)
    made = flashblocks()
    statuses(client, made[:2], committed=True)
    client.submit(transfer(1, 1))
    with pytest.raises(CallRefused):
        client.stand_in(NAME, 1)
    frame, own = client.stand_in(NAME, 2)
    assert own.diff.transactions == (transfer(1, 1),) and frame.index == 2


def test_every_flashblock_is_one_that_an_rpc_node_takes(client):
    for one in flashblocks():
        arrival = arrival_of(frame_of(one, GENESIS_HASH))
        assert (arrival.number, arrival.index, arrival.payload_id) == (1, one.index, NAME)


def test_a_nonce_fits_once():
    state = execute(GENESIS_STATE, (transfer(1, 0),))
    with pytest.raises(InvalidTransaction):
        execute(state, (transfer(1, 0),))
    with pytest.raises(InvalidTransaction):
        execute(state, (transfer(1, 2),))
    assert execute(GENESIS_STATE, (transfer(1, 0), transfer(2, 0))).root != (
        execute(GENESIS_STATE, (transfer(2, 0), transfer(1, 0))).root
    )
