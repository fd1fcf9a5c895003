"""The blocks that are known, and the ids under which others know them."""

from collections.abc import Iterator

from flashblocks.rollup_boost.assembly import Block
from flashblocks.rollup_boost.selection import ExecutionMode

BLOCKS_KEPT_MAX = 8


class Blocks:
    """Blocks by our own payload id; ``current`` is that of the block being put together, empty before the first."""

    def __init__(self) -> None:
        self.current = b""
        self._blocks: dict[bytes, Block] = {}
        self._aliases: dict[bytes, bytes] = {}
        self._builder_ids: dict[bytes, bytes] = {}

    def __len__(self) -> int:
        return len(self._blocks)

    def __iter__(self) -> Iterator[Block]:
        return iter(self._blocks.values())

    def get(self, payload_id: bytes) -> Block | None:
        """The block of this id of ours."""
        return self._blocks.get(payload_id)

    def find(self, client_id: bytes) -> Block | None:
        """The block that a client or we ourselves know by this id."""
        return self._blocks.get(self._aliases.get(client_id, client_id))

    @property
    def of_now(self) -> Block | None:
        """The block being put together."""
        return self._blocks.get(self.current)

    def open(self, payload_id: bytes, parent_hash: bytes, mode: ExecutionMode, now: float) -> Block:
        """The block of this id, begun if it is new; the oldest others are forgotten when there are too many."""
        block = self._blocks.get(payload_id)
        if block is None:
            block = self._blocks[payload_id] = Block(payload_id, parent_hash, mode=mode, opened_s=now, grown_s=now)
            for old in [key for key in self._blocks if key not in (payload_id, self.current)]:
                if len(self._blocks) > BLOCKS_KEPT_MAX:
                    self._forget(old)
        return block

    def alias(self, client_id: bytes, payload_id: bytes) -> None:
        """A client has an id of its own for this block."""
        self._aliases[client_id] = payload_id

    def named_by_builder(self, payload_id: bytes, client_id: bytes) -> None:
        """The builder confirmed the block, under this id."""
        self._builder_ids[payload_id] = client_id

    def builder_id(self, payload_id: bytes) -> bytes | None:
        """The builder's id of a block that it confirmed."""
        return self._builder_ids.get(payload_id)

    def check(self) -> None:
        """Assert what must hold between any two steps."""
        assert len(self) <= BLOCKS_KEPT_MAX
        for block in self:
            block.check()
        numbers = [block.number for block in self if block.promised and not block.done]
        assert len(numbers) == len(set(numbers)), "two open blocks of one height are promised"

    def _forget(self, payload_id: bytes) -> None:
        del self._blocks[payload_id]
        self._builder_ids.pop(payload_id, None)
        self._aliases = {alias: ours for alias, ours in self._aliases.items() if ours != payload_id}
