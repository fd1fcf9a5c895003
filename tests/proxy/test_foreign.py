import brotli
import orjson
import pytest

from flashblocks.proxy import foreign
from flashblocks.proxy.foreign import ForeignStream, ours, plain_json, unknown_hash
from flashblocks.wire.flashblock import (
    Flashblock,
    FlashblockBase,
    FlashblockDiff,
    FlashblockMetadata,
    FlashblockReceipt,
    encode_body,
)
from flashblocks.wire.flashblock_json import encode_json
from flashblocks.wire.frames import frame_of
from flashblocks.wire.hexadecimal import WireError
from flashblocks.wire.keccak import keccak256

root, parent, address = b"\x05" * 32, b"\x06" * 32, b"\x01" * 20
transactions = tuple(b"\x02%d" % n for n in range(5))


def flashblock(index, *, payload_id=b"\x04" * 8, state_root=root):
    base = FlashblockBase(root, parent, address, root, 7, 30_000_000, 14, b"", 7) if index == 0 else None
    diff = FlashblockDiff(state_root, root, bytes(256), 21_000, root, transactions, root)
    receipts = {keccak256(raw): FlashblockReceipt(2, 1, n) for n, raw in enumerate(transactions)}
    return Flashblock(payload_id, index, base, diff, FlashblockMetadata(7, {address: 1}, receipts))


@pytest.mark.parametrize(
    "pack", [bytes.decode, bytes, lambda text: b" \n" + text, lambda text: brotli.compress(text, quality=5, lgwin=22)]
)
def test_text_binary_and_brotli_say_the_same(pack):
    text = encode_json(flashblock(0))
    arrival = ForeignStream(3).read(pack(text))
    assert (arrival.upstream, arrival.epoch, arrival.key) == (3, None, (7, 0))
    assert arrival.item.text.strip() == text


def test_the_digest_is_that_of_our_own_frame_of_it_although_json_maps_have_no_order():
    own = flashblock(0)
    frame = frame_of(own, encode_body(own), parent)
    assert [*own.metadata.receipts] != sorted(own.metadata.receipts)
    arrival = ForeignStream(0).read(encode_json(own))
    assert arrival.digest == ours(1, frame).digest
    assert arrival.item.frame == frame


def test_the_parent_of_later_flashblocks_is_remembered_from_index_0():
    stream = ForeignStream(0)
    assert stream.read(encode_json(flashblock(1))).parent_hash == b""
    assert stream.read(encode_json(flashblock(1))).item.frame.parent_hash == unknown_hash
    assert stream.read(encode_json(flashblock(0))).parent_hash == parent
    assert stream.read(encode_json(flashblock(1))).parent_hash == parent
    assert stream.read(encode_json(flashblock(1, payload_id=b"\x09" * 8))).parent_hash == b""


def test_a_block_hash_without_a_state_root_means_nothing():
    assert ForeignStream(0).read(encode_json(flashblock(0))).block_hash == root
    assert ForeignStream(0).read(encode_json(flashblock(0, state_root=bytes(32)))).block_hash == b""


@pytest.mark.parametrize("message", ["", "ping", b"ping", b"\x00", b"{", "[]", brotli.compress(b"[]"), "{}"])
def test_anything_else_is_the_upstreams_fault(message):
    with pytest.raises(WireError):
        ForeignStream(0).read(message)


def test_a_small_message_cannot_grow_without_bound(monkeypatch):
    monkeypatch.setattr(foreign, "json_bytes_max", 1000)
    with pytest.raises(WireError, match="more than 1000 bytes"):
        plain_json(brotli.compress(orjson.dumps({"x": "y" * 1_000_000})))


def test_an_uncommitted_frame_has_no_epoch_to_compare():
    own = flashblock(0)
    assert ours(0, frame_of(own, encode_body(own), parent, epoch=0)).epoch is None
    assert ours(0, frame_of(own, encode_body(own), parent, epoch=4), replay=True).epoch == 4
