"""Bodies, JSON text, frames and assembly of flashblocks, against op-rbuilder's golden bytes."""

import msgpack
import msgspec
import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashblocks.wire.assembly import assemble, attributes_of
from flashblocks.wire.engine import Envelope, envelope_from_bytes, envelope_to_bytes
from flashblocks.wire.flashblock import (
    Flashblock,
    FlashblockBase,
    FlashblockDiff,
    FlashblockLog,
    FlashblockMetadata,
    FlashblockReceipt,
    body_digest,
    decode_body,
    encode_body,
)
from flashblocks.wire.flashblock_json import decode_json, encode_json
from flashblocks.wire.frames import (
    AnnounceGapFrame,
    CommittedFrame,
    FlashblockFrame,
    HealthFrame,
    LeadershipFrame,
    RefusedFrame,
    SealedFrame,
    decode_frame,
    encode_frame,
)
from flashblocks.wire.hexadecimal import WireError

hashes = st.binary(min_size=32, max_size=32)
addresses = st.binary(min_size=20, max_size=20)
wide = st.integers(0, 2**256 - 1)
narrow = st.integers(0, 2**63 - 1)
logs = st.builds(FlashblockLog, addresses, st.lists(hashes, max_size=4).map(tuple), st.binary(max_size=40))
optional = st.none() | narrow
receipts = st.builds(
    FlashblockReceipt, narrow, narrow, narrow, st.lists(logs, max_size=2).map(tuple), optional, optional
)
bases = st.builds(
    FlashblockBase, hashes, hashes, addresses, hashes, st.just(7), narrow, narrow, st.binary(max_size=32), wide
)
diffs = st.builds(
    FlashblockDiff,
    hashes,
    hashes,
    st.binary(min_size=256, max_size=256),
    narrow,
    hashes,
    st.lists(st.binary(max_size=60), max_size=3).map(tuple),
    hashes,
    optional,
)
metadatas = st.builds(
    FlashblockMetadata,
    st.just(7),
    st.dictionaries(addresses, wide, max_size=3),
    st.dictionaries(hashes, receipts, max_size=3),
)
identifiers = st.binary(min_size=8, max_size=8)
flashblocks = st.builds(Flashblock, identifiers, st.just(0), bases, diffs, metadatas) | st.builds(
    Flashblock, identifiers, st.integers(1, 50), st.none(), diffs, metadatas
)


def test_the_golden_bytes_survive_both_ways(first_text, third_text):
    for text in (first_text, third_text):
        assert encode_json(decode_json(text)) == text


@given(flashblocks)
def test_any_flashblock_survives_body_and_text(flashblock):
    assert decode_body(encode_body(flashblock)) == flashblock
    assert decode_json(encode_json(flashblock)) == flashblock


@given(flashblocks)
def test_a_body_is_plain_messagepack(flashblock):
    version, payload_id, index, *_ = msgpack.unpackb(encode_body(flashblock))
    assert (version, payload_id, index) == (1, flashblock.payload_id, flashblock.index)


@given(flashblocks, st.data())
def test_a_damaged_body_is_refused_or_another_flashblock_never_a_crash(flashblock, draw):
    body = bytearray(encode_body(flashblock))
    position = draw.draw(st.integers(0, len(body) - 1))
    body[position] ^= draw.draw(st.integers(1, 255))
    try:
        assert decode_body(bytes(body)) is not None
    except WireError:
        pass


def test_older_receipts_and_metadata_are_read(third_text):
    obj = orjson.loads(third_text)
    receipts = obj["metadata"]["receipts"]
    tx_hash, receipt = next(iter(receipts.items()))
    receipt.pop("type")
    receipts[tx_hash] = {"Eip1559": receipt}
    obj["metadata"]["access_list"] = None
    assert decode_json(orjson.dumps(obj)) == decode_json(third_text)
    obj["metadata"] = {"block_number": 100}
    assert decode_json(orjson.dumps(obj)).metadata == FlashblockMetadata(100)


@pytest.mark.parametrize(
    ("path", "value"),
    [
        (("payload_id",), "0x0a"),
        (("index",), "0x0"),
        (("index",), -1),
        (("index",), 1),
        (("base",), None),
        (("base", "parent_hash"), "33" * 32),
        (("base", "block_number"), "0x65"),
        (("diff",), None),
        (("diff", "logs_bloom"), "0x00"),
        (("diff", "transactions"), None),
        (("diff", "withdrawals"), [{}]),
        (("diff", "gas_used"), "0x"),
        (("metadata", "block_number"), "0x64"),
        (("metadata", "receipts"), {"0x11": {}}),
    ],
)
def test_every_deviation_is_refused(first_text, path, value):
    obj = orjson.loads(first_text)
    target = obj
    for name in path[:-1]:
        target = target[name]
    target[path[-1]] = value
    with pytest.raises(WireError):
        decode_json(orjson.dumps(obj))


FRAME = FlashblockFrame(3, 100, 0, b"\1" * 8, b"\2" * 32, b"\3" * 32, body_digest(b"body"), "00-ab-cd-01", b"body")


@pytest.mark.parametrize(
    "frame",
    [
        FRAME,
        CommittedFrame(FRAME),
        RefusedFrame(100, 4, b"\1" * 8, "stale_epoch"),
        SealedFrame(100, b"\3" * 32),
        LeadershipFrame(3, True),
        HealthFrame(206, "builder down"),
        AnnounceGapFrame(100, 3, 5),
    ],
)
def test_frames_survive_the_wire(frame):
    assert decode_frame(encode_frame(frame)) == frame


@pytest.mark.parametrize(
    "raw", [b"", b"\xff", msgpack.packb(["no such kind", 1]), msgpack.packb(["sealed", 1]), msgpack.packb("health")]
)
def test_garbage_frames_are_refused(raw):
    with pytest.raises(WireError):
        decode_frame(raw)


def test_a_frame_whose_digest_is_not_its_bodys_is_refused():
    with pytest.raises(WireError, match="digest"):
        decode_frame(encode_frame(msgspec.structs.replace(FRAME, body=b"another")))


def test_a_block_is_its_base_its_last_roots_and_all_its_transactions(first_text, third_text):
    first = decode_json(first_text)
    second = msgspec.structs.replace(decode_json(third_text), index=1)
    envelope = assemble([first, second])
    payload = envelope.payload
    assert envelope.parent_beacon_block_root == b"\x22" * 32
    assert payload.transactions == (b"\x7e\1\2\3", b"\x02\xff")
    assert (payload.block_hash, payload.gas_used, payload.blob_gas_used) == (b"\xcc" * 32, 0x11558, 0)
    assert Envelope.from_json(orjson.loads(orjson.dumps(envelope.to_json()))) == envelope
    assert envelope_from_bytes(envelope_to_bytes(envelope)) == envelope


def test_a_gap_or_a_mixture_assembles_to_nothing(first_text, third_text):
    first, third = decode_json(first_text), decode_json(third_text)
    other = msgspec.structs.replace(third, index=1, payload_id=b"\0" * 8)
    for sequence in ([], [third], [first, third], [first, other], [first, first]):
        with pytest.raises(WireError):
            assemble(sequence)


@pytest.mark.parametrize(
    ("extra", "params", "minimum"),
    [
        ("00000000fa00000006", "000000fa00000006", None),
        ("01000000fa0000000600000000000003e8", "000000fa00000006", 1000),
    ],
)
def test_the_attributes_of_an_open_block_come_out_of_its_first_flashblock(first_text, extra, params, minimum):
    first = decode_json(first_text)
    base = msgspec.structs.replace(first.base, extra_data=bytes.fromhex(extra))
    attributes = attributes_of(msgspec.structs.replace(first, base=base))
    assert attributes.eip1559_params == bytes.fromhex(params)
    assert attributes.min_base_fee == minimum
    assert attributes.transactions == first.diff.transactions
    assert (attributes.timestamp, attributes.gas_limit) == (base.timestamp, base.gas_limit)


def test_attributes_of_a_later_flashblock_or_strange_extra_data_are_refused(first_text, third_text):
    for text in (first_text, third_text):
        with pytest.raises(WireError):
            attributes_of(decode_json(text))
