"""What these rules read of the ledger. The ledger itself lives above this floor, so here is its shape only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class CommittedFlashblock(Protocol):
    """One committed flashblock."""

    @property
    def index(self) -> int: ...  # noqa: D102
    @property
    def block_hash(self) -> bytes: ...  # noqa: D102
    @property
    def digest(self) -> bytes: ...  # noqa: D102
    @property
    def body(self) -> bytes: ...  # noqa: D102
    @property
    def traceparent(self) -> str: ...  # noqa: D102


class CommittedBlock(Protocol):
    """A block with committed flashblocks: the open one, or a sealed one. `payload_id` None: a fallback block."""

    @property
    def number(self) -> int: ...  # noqa: D102
    @property
    def payload_id(self) -> bytes | None: ...  # noqa: D102
    @property
    def parent_hash(self) -> bytes: ...  # noqa: D102
    @property
    def entries(self) -> Sequence[CommittedFlashblock]: ...  # noqa: D102


class SealedBlock(CommittedBlock, Protocol):
    """A sealed block; `payload` is set instead of entries for a fallback block."""

    @property
    def block_hash(self) -> bytes: ...  # noqa: D102
    @property
    def payload(self) -> bytes | None: ...  # noqa: D102


class LedgerState(Protocol):
    """The ledger at one moment."""

    @property
    def epoch(self) -> int: ...  # noqa: D102
    @property
    def head_number(self) -> int: ...  # noqa: D102
    @property
    def head_hash(self) -> bytes: ...  # noqa: D102
    @property
    def open(self) -> CommittedBlock | None: ...  # noqa: D102
    @property
    def sealed_blocks(self) -> Sequence[SealedBlock]: ...  # noqa: D102
