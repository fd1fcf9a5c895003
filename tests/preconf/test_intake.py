"""Frames against their bodies, payload ids against their attributes, foreign JSON with its parent remembered."""

import msgspec
import pytest

from flashblocks.preconf.intake import ForeignIntake, arrival_of, names_its_payload
from flashblocks.wire.assembly import attributes_of
from flashblocks.wire.flashblock import Flashblock, FlashblockBase, FlashblockDiff, FlashblockMetadata, encode_body
from flashblocks.wire.flashblock_json import encode_json
from flashblocks.wire.frames import frame_of
from flashblocks.wire.hexadecimal import WireError
from flashblocks.wire.keccak import keccak256
from flashblocks.wire.payload_id import payload_id

PARENT = b"\x33" * 32
BASE = FlashblockBase(
    bytes(32), PARENT, b"\x11" * 20, b"\x44" * 32, 7, 30_000_000, 1_700_000_000, b"\0" + b"\0\0\0\x32\0\0\0\x06", 10**6
)


def flashblock(index: int, *, no_tx_pool: bool = False, zero_params: bool = False) -> Flashblock:
    transactions = (b"\x7e\x01",) if index == 0 else (b"\x02\x01", b"\x02\x02")
    diff = FlashblockDiff(bytes(32), bytes(32), bytes(256), 1, b"\x77" * 32, transactions, bytes(32))
    first = Flashblock(bytes(8), 0, BASE, msgspec.structs.replace(diff, transactions=(b"\x7e\x01",)), _metadata())
    attributes = msgspec.structs.replace(attributes_of(first), no_tx_pool=no_tx_pool)
    if zero_params:
        attributes = msgspec.structs.replace(attributes, eip1559_params=bytes(8))
    return Flashblock(payload_id(PARENT, attributes), index, BASE if index == 0 else None, diff, _metadata())


def _metadata() -> FlashblockMetadata:
    return FlashblockMetadata(7)


def test_a_true_frame_becomes_an_arrival() -> None:
    made = flashblock(1)
    frame = frame_of(made, encode_body(made), PARENT, epoch=3, traceparent="00-1-2-01")
    arrival = arrival_of(frame)
    assert (arrival.epoch, arrival.number, arrival.index, arrival.parent_hash) == (3, 7, 1, PARENT)
    assert arrival.transactions == (keccak256(b"\x02\x01"), keccak256(b"\x02\x02"))
    assert (arrival.flashblock, arrival.digest, arrival.traceparent) == (made, frame.digest, "00-1-2-01")


@pytest.mark.parametrize(
    "lie",
    [{"number": 8}, {"index": 1}, {"payload_id": b"\x04" * 8}, {"block_hash": bytes(32)}, {"parent_hash": bytes(32)}],
    ids=lambda lie: next(iter(lie)),
)
def test_a_frame_that_contradicts_its_body_is_refused(lie: dict[str, object]) -> None:
    made = flashblock(0)
    frame = frame_of(made, encode_body(made), PARENT)
    assert arrival_of(frame).index == 0
    with pytest.raises(WireError, match="frame: "):
        arrival_of(msgspec.structs.replace(frame, **lie))


@pytest.mark.parametrize("no_tx_pool", [False, True])
@pytest.mark.parametrize("zero_params", [False, True])
@pytest.mark.parametrize("version", [3, 4])
def test_the_payload_id_is_that_of_the_attributes(no_tx_pool: bool, zero_params: bool, version: int) -> None:
    made = flashblock(0, no_tx_pool=no_tx_pool, zero_params=zero_params)
    made = msgspec.structs.replace(made, payload_id=bytes([version]) + made.payload_id[1:])
    assert names_its_payload(made)


def test_a_payload_id_of_other_attributes_is_refused() -> None:
    made = msgspec.structs.replace(flashblock(0), payload_id=b"\x04" + b"\x99" * 7)
    with pytest.raises(WireError, match="payload id is not that of the attributes"):
        arrival_of(frame_of(made, encode_body(made), PARENT))


def test_foreign_json_needs_its_index_0_first() -> None:
    intake = ForeignIntake()
    with pytest.raises(WireError, match="index 0"):
        intake.arrival_of(encode_json(flashblock(1)))
    assert intake.arrival_of(encode_json(flashblock(0))).parent_hash == PARENT
    later = intake.arrival_of(encode_json(flashblock(1)))
    assert (later.epoch, later.parent_hash, later.index) == (0, PARENT, 1)
    assert later.digest == intake.arrival_of(encode_json(flashblock(1))).digest
    with pytest.raises(WireError):
        intake.arrival_of("{")
