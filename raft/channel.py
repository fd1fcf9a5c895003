"""The authenticated channel under every Raft link, without IO: bytes in, messages out.

Both ends know the cluster's secret. Each sends a hello with a fresh nonce; two keys, one per direction, are derived
from secret, context and both nonces (HKDF-SHA256), and every frame is sealed with AES-256-GCM under a counter. So a
frame can be neither read, forged, altered, dropped, reordered nor replayed, in this connection or from another one,
and nothing of a stranger is decoded beyond 40 bytes of hello. It replaces PySyncObj's own encryption, which costs
several times more (see benchmarks/raft_commit.py), and its pickled messages.
"""

from __future__ import annotations

from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

MAGIC: Final = b"FBRAFT\x00\x01"
NONCE_BYTES: Final = 32
HELLO_BYTES: Final = len(MAGIC) + NONCE_BYTES
LENGTH_BYTES: Final = 4
TAG_BYTES: Final = 16
KEY_BYTES: Final = 32
FRAME_BYTES_MAX: Final = 96 * 1024 * 1024
"""Largest sealed frame from a peer that proved itself: one full batch of log entries and its envelope."""
BUFFER_BYTES: Final = 256 * 1024
"""Receive buffer of a connection; it grows to the frame being received and shrinks again."""
BUFFER_KEPT_BYTES_MAX: Final = 4 * 1024 * 1024
FIRST_FRAME_BYTES_MAX: Final = 1024
"""Largest first frame, the introduction: a stranger cannot make us wait for more."""


class ChannelError(ValueError):
    """The peer does not speak our protocol, does not know the secret, or sent a forged frame: close the link."""


class Channel:
    """One end of one connection. `nonce` is 32 fresh random bytes; `context` must be equal on both ends."""

    def __init__(self, secret: bytes, context: bytes, nonce: bytes, initiator: bool) -> None:
        if len(nonce) != NONCE_BYTES:
            raise ValueError(f"nonce has {len(nonce)} bytes, expected {NONCE_BYTES}")
        self._secret = secret
        self._context = context
        self._nonce = nonce
        self._initiator = initiator
        self._sealer: AESGCM | None = None
        self._opener: AESGCM | None = None
        self._sealed_frames = 0
        self._opened_frames = 0
        self._buffer = bytearray(BUFFER_BYTES)
        self._filled = 0

    @property
    def keyed(self) -> bool:
        """Whether the peer's hello has arrived, so that frames can be sealed."""
        return self._sealer is not None

    @property
    def proven(self) -> bool:
        """Whether the peer has sealed at least one frame correctly, that is: knows the secret."""
        return self._opened_frames > 0

    def hello(self) -> bytes:
        """The first bytes to send, once."""
        return MAGIC + self._nonce

    def seal(self, message: bytes) -> tuple[bytes, bytes]:
        """(length prefix, sealed message), to be sent in this order."""
        assert self._sealer is not None, "seal before the peer's hello"
        length = (len(message) + TAG_BYTES).to_bytes(LENGTH_BYTES, "big")
        sealed = self._sealer.encrypt(self._sealed_frames.to_bytes(12, "big"), message, length)
        self._sealed_frames += 1
        return length, sealed

    def space(self) -> memoryview:
        """Where to receive the next bytes; never empty. Report what was written there with `advance`."""
        return memoryview(self._buffer)[self._filled :]

    def feed(self, data: bytes) -> list[bytes]:
        """Take received bytes from elsewhere; see `advance`."""
        messages = []
        rest = memoryview(data)
        while rest:
            space = self.space()
            part = rest[: len(space)]
            space[: len(part)] = part
            messages += self.advance(len(part))
            rest = rest[len(part) :]
        return messages

    def advance(self, count: int) -> list[bytes]:
        """`count` more bytes were received; the messages that became complete, in order. Raises ChannelError."""
        self._filled += count
        position = 0
        if self._sealer is None:
            position = self._take_hello()
        messages = []
        while (end := self._frame_end(position)) is not None and end <= self._filled:
            messages.append(self._open(position, end))
            position = end
        self._make_room(position, end)
        return messages

    def _make_room(self, position: int, end: int | None) -> None:
        """Keep what is left from `position` on at the front of a buffer that holds the frame up to `end`."""
        left = self._filled - position
        needed = max(BUFFER_BYTES, 0 if end is None else end - position)
        size = len(self._buffer)
        if needed > size or (size > BUFFER_KEPT_BYTES_MAX and needed < size and left < BUFFER_BYTES):
            larger = bytearray(needed)
            larger[:left] = memoryview(self._buffer)[position : self._filled]
            self._buffer = larger
        elif position and left:
            self._buffer[:left] = self._buffer[position : self._filled]
        self._filled = left

    def _take_hello(self) -> int:
        """Check as much of the peer's hello as is there, make the keys once it is whole; how many bytes it took."""
        start = bytes(self._buffer[: min(self._filled, len(MAGIC))])
        if start != MAGIC[: len(start)]:
            raise ChannelError("not a raft link of this version")
        if self._filled < HELLO_BYTES:
            return 0
        peer_nonce = bytes(self._buffer[len(MAGIC) : HELLO_BYTES])
        if peer_nonce == self._nonce:
            raise ChannelError("the peer reflects our own hello")
        nonces = (self._nonce, peer_nonce) if self._initiator else (peer_nonce, self._nonce)
        keys = HKDF(SHA256(), 2 * KEY_BYTES, salt=b"".join(nonces), info=self._context).derive(self._secret)
        mine, theirs = (keys[:KEY_BYTES], keys[KEY_BYTES:]) if self._initiator else (keys[KEY_BYTES:], keys[:KEY_BYTES])
        self._sealer = AESGCM(mine)
        self._opener = AESGCM(theirs)
        return HELLO_BYTES

    def _frame_end(self, position: int) -> int | None:
        """Where the frame at `position` ends, or None while its length (or a key) is missing."""
        start = position + LENGTH_BYTES
        if self._opener is None or self._filled < start:
            return None
        length = int.from_bytes(self._buffer[position:start], "big")
        limit = FRAME_BYTES_MAX if self.proven else FIRST_FRAME_BYTES_MAX
        if not TAG_BYTES <= length <= limit:
            raise ChannelError(f"frame of {length} bytes, allowed are {TAG_BYTES} to {limit}")
        return start + length

    def _open(self, position: int, end: int) -> bytes:
        assert self._opener is not None
        start = position + LENGTH_BYTES
        nonce = self._opened_frames.to_bytes(12, "big")
        view = memoryview(self._buffer)
        try:
            message = self._opener.decrypt(nonce, view[start:end], bytes(view[position:start]))
        except InvalidTag as error:
            raise ChannelError("a frame is not sealed with the cluster's secret") from error
        self._opened_frames += 1
        return message
