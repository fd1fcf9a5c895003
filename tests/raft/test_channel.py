"""The authenticated channel: two ends that know the secret understand each other, and nobody else gets anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from raft.channel import (
    BUFFER_BYTES,
    FIRST_FRAME_BYTES_MAX,
    FRAME_BYTES_MAX,
    HELLO_BYTES,
    MAGIC,
    Channel,
    ChannelError,
)

SECRET = b"s" * 32


def pair(
    secrets: tuple[bytes, bytes] = (SECRET, SECRET), contexts: tuple[bytes, bytes] = (b"c", b"c")
) -> tuple[Channel, Channel]:
    dialler = Channel(secrets[0], contexts[0], b"d" * 32, initiator=True)
    listener = Channel(secrets[1], contexts[1], b"l" * 32, initiator=False)
    assert dialler.feed(listener.hello()) == []
    assert listener.feed(dialler.hello()) == []
    return dialler, listener


def sealed(channel: Channel, message: bytes) -> bytes:
    return b"".join(channel.seal(message))


def test_messages_arrive_in_both_directions_and_in_order():
    dialler, listener = pair()
    assert not listener.proven
    assert listener.feed(sealed(dialler, b"one") + sealed(dialler, b"") + sealed(dialler, b"three")) == [
        b"one",
        b"",
        b"three",
    ]
    assert listener.proven
    assert dialler.feed(sealed(listener, b"answer")) == [b"answer"]


def test_nothing_of_a_message_is_readable_on_the_wire():
    dialler, _ = pair()
    assert b"preconfirmation" not in sealed(dialler, b"preconfirmation" * 10)


@given(
    st.lists(st.one_of(st.integers(0, 300), st.just(BUFFER_BYTES + 100)), min_size=1, max_size=6),
    st.lists(st.integers(1, 400_000), min_size=1, max_size=20),
)
def test_it_does_not_matter_how_the_bytes_are_cut(lengths, cuts):
    messages = [bytes([number]) * length for number, length in enumerate(lengths)]
    dialler, listener = pair()
    listener.feed(sealed(dialler, b"introduction"))
    stream = b"".join(sealed(dialler, message) for message in messages)
    received, position, step = [], 0, 0
    while position < len(stream):
        length = max(cuts[step % len(cuts)], len(stream) // 1000)
        step += 1
        received += listener.feed(stream[position : position + length])
        position += length
    assert received == messages


def test_the_hello_may_come_in_pieces_with_the_first_frame_behind_it():
    dialler = Channel(SECRET, b"c", b"d" * 32, initiator=True)
    listener = Channel(SECRET, b"c", b"l" * 32, initiator=False)
    dialler.feed(listener.hello())
    stream = dialler.hello() + sealed(dialler, b"first")
    received = []
    for position in range(len(stream)):
        received += listener.feed(stream[position : position + 1])
        assert listener.keyed == (position + 1 >= HELLO_BYTES)
    assert received == [b"first"]


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\n", b"\x80\x05cos\nsystem", b"FBRAFT\x00\x02" + bytes(32), b"X"])
def test_another_protocol_is_noticed_at_its_first_bytes(start):
    with pytest.raises(ChannelError):
        Channel(SECRET, b"c", b"l" * 32, initiator=False).feed(start)


@pytest.mark.parametrize(
    ("secrets", "contexts"), [((SECRET, b"t" * 32), (b"c", b"c")), ((SECRET, SECRET), (b"c", b"e"))]
)
def test_another_secret_or_another_cluster_proves_nothing(secrets, contexts):
    dialler, listener = pair(secrets, contexts)
    with pytest.raises(ChannelError):
        listener.feed(sealed(dialler, b"hello"))
    with pytest.raises(ChannelError):
        dialler.feed(sealed(listener, b"hello"))


def test_every_altered_bit_of_a_frame_is_noticed():
    frame = sealed(pair()[0], b"message")
    for bit in range(len(frame) * 8):
        altered = bytearray(frame)
        altered[bit // 8] ^= 1 << bit % 8
        _, listener = pair()
        try:
            assert listener.feed(bytes(altered)) == [], f"bit {bit}"  # a longer length: still waiting for the rest
        except ChannelError:
            continue
        with pytest.raises(ChannelError):
            listener.feed(bytes(FIRST_FRAME_BYTES_MAX))


def test_a_frame_can_be_neither_repeated_nor_dropped_nor_reordered():
    for order in ([0, 0], [1], [0, 2]):
        dialler, listener = pair()
        frames = [sealed(dialler, b"%d" % number) for number in range(3)]
        with pytest.raises(ChannelError):
            listener.feed(b"".join(frames[number] for number in order))


def test_a_recorded_connection_cannot_be_played_again():
    dialler, listener = pair()
    recorded = sealed(dialler, b"vote for me")
    assert listener.feed(recorded) == [b"vote for me"]
    fresh = Channel(SECRET, b"c", b"m" * 32, initiator=False)
    fresh.feed(dialler.hello())
    with pytest.raises(ChannelError):
        fresh.feed(recorded)


def test_a_frame_cannot_be_reflected():
    dialler, _ = pair()
    with pytest.raises(ChannelError):
        dialler.feed(sealed(dialler, b"mine"))
    own = Channel(SECRET, b"c", b"d" * 32, initiator=False)
    with pytest.raises(ChannelError, match="reflects"):
        own.feed(own.hello())


def test_lengths_are_bounded_and_a_strangers_more_tightly():
    _, listener = pair()
    with pytest.raises(ChannelError, match="allowed"):
        listener.feed((FIRST_FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    dialler, listener = pair()
    listener.feed(sealed(dialler, b"proof"))
    listener.feed((FIRST_FRAME_BYTES_MAX + 1).to_bytes(4, "big"))
    for length in (FRAME_BYTES_MAX + 1, 15, 0):
        dialler, listener = pair()
        listener.feed(sealed(dialler, b"proof"))
        with pytest.raises(ChannelError, match="allowed"):
            listener.feed(length.to_bytes(4, "big"))


def test_a_large_frame_does_not_keep_its_memory():
    dialler, listener = pair()
    listener.feed(sealed(dialler, b"proof"))
    large = sealed(dialler, bytes(6_000_000))
    assert listener.feed(large) == [bytes(6_000_000)]
    listener.feed(sealed(dialler, b"small"))
    assert len(listener.space()) <= BUFFER_BYTES


def test_the_hello_carries_nothing_but_magic_and_nonce():
    assert Channel(SECRET, b"c", b"n" * 32, initiator=True).hello() == MAGIC + b"n" * 32
    with pytest.raises(ValueError, match="nonce"):
        Channel(SECRET, b"c", b"short", initiator=True)
