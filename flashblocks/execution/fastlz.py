"""The size a transaction would have after FastLZ compression: the Fjord rules' estimate of its size on L1."""

HASH_MULTIPLIER = 2654435769
HASH_MASK = 0x1FFF
WINDOW_BYTES = 0x1FFF
INPUT_MARGIN_BYTES = 13
MAX_MATCH_BYTES = 262
LITERAL_RUN_BYTES = 32


def fastlz_size(data: bytes) -> int:
    """Length in bytes of FlzCompressLen(data) (op-geth core/types/rollup_cost.go; LZ77 with an 8192-entry table)."""
    limit = len(data) - INPUT_MARGIN_BYTES if len(data) >= INPUT_MARGIN_BYTES else 0
    size = anchor = 0
    at = 2
    table: dict[int, int] = {}
    lookup = table.get
    while at < limit:
        # Look for an earlier occurrence of the next three bytes.
        while True:
            triple = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            bucket = (HASH_MULTIPLIER * triple >> 19) & HASH_MASK
            earlier = lookup(bucket, 0)
            table[bucket] = at
            if at >= limit:
                break
            distance = at - earlier
            at += 1
            if distance <= WINDOW_BYTES and triple == (
                data[earlier] | data[earlier + 1] << 8 | data[earlier + 2] << 16
            ):
                break
        if at >= limit:
            break
        at -= 1
        if at > anchor:
            size += _literals(at - anchor)
        length = _match_length(data, earlier + 3, at + 3, limit + 9)
        size += _match(length)
        at += length
        for _ in range(2):
            triple = data[at] | data[at + 1] << 8 | data[at + 2] << 16
            table[(HASH_MULTIPLIER * triple >> 19) & HASH_MASK] = at
            at += 1
        anchor = at
    return size + _literals(len(data) - anchor)


def _match_length(data: bytes, earlier: int, at: int, end: int) -> int:
    """Equal bytes from both positions on; the first mismatch ends the count but is counted."""
    length = 0
    while at + length < end:
        length += 1
        if data[earlier + length - 1] != data[at + length - 1]:
            break
    return length


def _literals(count: int) -> int:
    runs, rest = divmod(count, LITERAL_RUN_BYTES)
    return runs * (LITERAL_RUN_BYTES + 1) + (rest + 1 if rest else 0)


def _match(length: int) -> int:
    runs, rest = divmod(length - 1, MAX_MATCH_BYTES)
    return runs * 3 + (3 if rest >= 6 else 2)
