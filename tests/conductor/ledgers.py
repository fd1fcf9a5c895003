"""Ledgers for the tests of this room, made by the real state machine."""

from flashblocks.wire.assembly import assemble
from flashblocks.wire.engine import Envelope, envelope_to_bytes
from flashblocks.wire.flashblock import (
    Flashblock,
    FlashblockBase,
    FlashblockDiff,
    FlashblockMetadata,
    body_digest,
    encode_body,
)
from raft.commands import Accepted, Append, Claim, Seal, SealBlock
from raft.ledger import Ledger

NODE = "sequencer-0"
GENESIS = b"\xaa" * 32


def flashblock(number: int, index: int, parent_hash: bytes) -> Flashblock:
    base = FlashblockBase(
        b"\1" * 32, parent_hash, b"\2" * 20, b"\3" * 32, number, 10**8, 1000 + 2 * number, b"\0" * 9, 7
    )
    block_hash = bytes((number, index)).rjust(32, b"\x0b")
    diff = FlashblockDiff(b"\4" * 32, b"\5" * 32, b"\0" * 256, index, block_hash, (bytes((number, index)),), b"\6" * 32)
    return Flashblock(
        b"\4" + bytes(6) + bytes((number,)), index, base if index == 0 else None, diff, FlashblockMetadata(number)
    )


class Chain:
    """Grows a ledger block by block under one epoch."""

    def __init__(self, epoch: int = 1) -> None:
        self.ledger, self.epoch = Ledger(0, GENESIS), epoch
        self.envelopes: dict[int, Envelope] = {}
        self._apply(Claim(epoch, NODE))

    def flashblocks(self, count: int) -> None:
        """Open the next block with that many flashblocks."""
        number, parent = self.ledger.head[0] + 1, self.ledger.head[1]
        made = [flashblock(number, index, parent) for index in range(count)]
        for one in made:
            body = encode_body(one)
            self._apply(
                Append(
                    self.epoch,
                    NODE,
                    one.payload_id,
                    number,
                    one.index,
                    parent,
                    one.diff.block_hash,
                    body_digest(body),
                    body,
                    f"00-{number:032x}-{one.index + 1:016x}-01",
                )
            )
        self.envelopes[number] = assemble(made)

    def seal(self) -> None:
        """Seal the open block."""
        block = self.ledger.open
        self._apply(Seal(self.epoch, NODE, block.number, block.payload_id, block.last_index, block.block_hash))

    def fallback(self) -> None:
        """Seal a block without flashblocks."""
        number, parent = self.ledger.head[0] + 1, self.ledger.head[1]
        envelope = assemble([flashblock(number, 0, parent)])
        payload = envelope.payload
        self._apply(SealBlock(self.epoch, NODE, number, parent, payload.block_hash, envelope_to_bytes(envelope)))
        self.envelopes[number] = envelope

    def blocks(self, count: int, flashblocks: int = 3) -> None:
        for _ in range(count):
            self.flashblocks(flashblocks)
            self.seal()

    def _apply(self, command) -> None:
        answer, _ = self.ledger.apply(command)
        assert isinstance(answer, Accepted), answer
