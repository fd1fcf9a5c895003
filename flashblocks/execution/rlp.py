"""RLP (yellow paper, appendix B): encoding from ready pieces, and a strict decoder for hostile bytes."""

from flashblocks.execution.errors import InvalidEncoding

RlpItem = bytes | list["RlpItem"]

NESTING_LIMIT_LEVELS = 8  # the deepest thing we read is a block: block > transactions > access list > entry > keys


def encode_bytes(value: bytes) -> bytes:
    """The encoding of a byte string."""
    size = len(value)
    if size < 56:
        if size == 1 and value[0] < 128:
            return value
        return bytes((128 + size,)) + value
    length = size.to_bytes((size.bit_length() + 7) >> 3, "big")
    return bytes((183 + len(length),)) + length + value


def encode_uint(value: int) -> bytes:
    """The encoding of a non-negative integer: big endian without leading zeros."""
    if value == 0:
        return b"\x80"
    if value < 128:
        return bytes((value,))
    return encode_bytes(value.to_bytes((value.bit_length() + 7) >> 3, "big"))


def wrap_list(payload: bytes) -> bytes:
    """The encoding of a list whose items are already encoded and joined in `payload`."""
    size = len(payload)
    if size < 56:
        return bytes((192 + size,)) + payload
    length = size.to_bytes((size.bit_length() + 7) >> 3, "big")
    return bytes((247 + len(length),)) + length + payload


def encode(item: RlpItem) -> bytes:
    """The encoding of nested lists of byte strings."""
    if isinstance(item, list):
        return wrap_list(b"".join([encode(child) for child in item]))
    return encode_bytes(item)


def minimal_bytes(value: int) -> bytes:
    """A non-negative integer as big-endian bytes without leading zeros (zero is the empty string)."""
    return value.to_bytes((value.bit_length() + 7) >> 3, "big")


def decode(encoded: bytes) -> RlpItem:
    """The item that `encoded` is, wholly; raises InvalidEncoding for anything that is not canonical."""
    item, end = _item_at(encoded, 0, len(encoded), 0)
    if end != len(encoded):
        raise InvalidEncoding("rlp: trailing bytes")
    return item


def decode_list(encoded: bytes) -> list[RlpItem]:
    """Like `decode`, for an encoding that must be a list."""
    item = decode(encoded)
    if not isinstance(item, list):
        raise InvalidEncoding("rlp: expected a list")
    return item


def _item_at(data: bytes, at: int, limit: int, depth: int) -> tuple[RlpItem, int]:
    if at >= limit:
        raise InvalidEncoding("rlp: input too short")
    head = data[at]
    if head < 128:
        return data[at : at + 1], at + 1
    if head < 192:
        start, end = _extent(data, at, limit, head - 128)
        if head == 129 and data[start] < 128:
            raise InvalidEncoding("rlp: non-canonical single byte")
        return data[start:end], end
    if depth >= NESTING_LIMIT_LEVELS:
        raise InvalidEncoding("rlp: nested too deeply")
    start, end = _extent(data, at, limit, head - 192)
    items: list[RlpItem] = []
    while start < end:
        item, start = _item_at(data, start, end, depth + 1)
        items.append(item)
    return items, end


def _extent(data: bytes, at: int, limit: int, size: int) -> tuple[int, int]:
    """Where the payload of the item at `at` lies; `size` is its head byte without the type bits."""
    start = at + 1
    if size > 55:
        width = size - 55
        start += width
        size = int.from_bytes(data[at + 1 : start], "big")
        if start > limit or size < 56 or data[at + 1] == 0:
            raise InvalidEncoding("rlp: non-canonical size")
    if start + size > limit:
        raise InvalidEncoding("rlp: value size exceeds available input length")
    return start, start + size


def split_list(encoded: bytes) -> list[bytes]:
    """The items of a trusted list (a trie node), still encoded."""
    head = encoded[0]
    at = 1 if head < 248 else 1 + head - 247
    items = []
    while at < len(encoded):
        head = encoded[at]
        if head < 128:
            end = at + 1
        elif head < 184:
            end = at + 1 + head - 128
        elif head < 192:
            width = head - 183
            end = at + 1 + width + int.from_bytes(encoded[at + 1 : at + 1 + width], "big")
        elif head < 248:
            end = at + 1 + head - 192
        else:
            width = head - 247
            end = at + 1 + width + int.from_bytes(encoded[at + 1 : at + 1 + width], "big")
        items.append(encoded[at:end])
        at = end
    return items


def string_payload(encoded: bytes) -> bytes:
    """The bytes of one trusted, encoded byte string."""
    head = encoded[0]
    if head < 128:
        return encoded
    return encoded[1:] if head < 184 else encoded[head - 182 :]
