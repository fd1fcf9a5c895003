"""A simulated L1: one block every twelve seconds, everything in it a function of a seed and the genesis time.

Every op-node of a cluster computes the same L1 without asking anybody. What is not computed is injected: user
deposits, placed in an L1 block that does not exist yet, so that they can reach all op-nodes before any uses it.
"""

from __future__ import annotations

from typing import Final

import msgspec

from flashblocks.sequencing.deposits import UserDeposit
from flashblocks.sequencing.references import BlockId
from flashblocks.wire.keccak import keccak256

L1_BLOCK_TIME_S: Final = 12
L1_BASE_FEE_WEI: Final = 1_000_000_000
L1_BASE_FEE_SWING_PERMILLE: Final = 125
L1_BLOB_BASE_FEE_WEI: Final = 1
DEPOSIT_NOTICE_S: Final = 4.0
"""A deposit is put into a block at least this far ahead, time enough to reach every op-node."""
DEPOSITS_PER_BLOCK_MAX: Final = 256
DEPOSITS_TOTAL_MAX: Final = 65_536


class L1Block(msgspec.Struct, frozen=True, kw_only=True):
    """The fields of an L1 header that reach L2; fees in wei."""

    number: int
    hash: bytes
    parent_hash: bytes
    timestamp: int
    base_fee: int
    blob_base_fee: int
    mix_hash: bytes
    parent_beacon_block_root: bytes

    @property
    def id(self) -> BlockId:
        """Number and hash."""
        return BlockId(self.number, self.hash)


class DepositRefused(ValueError):
    """The deposit has no place: there are too many, or its id is taken."""


class SimulatedL1:
    """The chain of `seed`, whose block 0 has `genesis_time` (Unix seconds); `now` is an argument throughout."""

    def __init__(self, seed: bytes, genesis_time: int) -> None:
        self._seed = seed
        self.genesis_time = genesis_time
        self._deposits: dict[int, dict[bytes, UserDeposit]] = {}
        self._deposits_total = 0

    def block(self, number: int) -> L1Block:
        """Block `number`, whether or not its time has come."""
        swing = int.from_bytes(self._draw(b"base fee", number)[:8], "big") % (2 * L1_BASE_FEE_SWING_PERMILLE + 1)
        return L1Block(
            number=number,
            hash=self._draw(b"hash", number),
            parent_hash=self._draw(b"hash", number - 1) if number else b"\0" * 32,
            timestamp=self.genesis_time + number * L1_BLOCK_TIME_S,
            base_fee=L1_BASE_FEE_WEI * (1000 - L1_BASE_FEE_SWING_PERMILLE + swing) // 1000,
            blob_base_fee=L1_BLOB_BASE_FEE_WEI,
            mix_hash=self._draw(b"mix hash", number),
            parent_beacon_block_root=self._draw(b"beacon root", number),
        )

    def head(self, now: float) -> L1Block:
        """The newest block at `now`; the genesis block before its time."""
        return self.block(max(0, int(now - self.genesis_time) // L1_BLOCK_TIME_S))

    def deposits(self, number: int) -> tuple[UserDeposit, ...]:
        """The user deposits of block `number`, in the order of their log index (which is the order of their ids)."""
        there = self._deposits.get(number, {})
        return tuple(there[deposit_id] for deposit_id in sorted(there))

    def deposits_from(self, number: int) -> list[tuple[int, bytes, UserDeposit]]:
        """All (block number, id, deposit) from block `number` on: what a restarted op-node asks a peer for."""
        return [
            (block, deposit_id, deposit)
            for block, there in sorted(self._deposits.items())
            if block >= number
            for deposit_id, deposit in sorted(there.items())
        ]

    def next_deposit_block(self, now: float) -> int:
        """The first block that is still at least `DEPOSIT_NOTICE_S` ahead of `now`."""
        return self.head(now + DEPOSIT_NOTICE_S).number + 1

    def place(self, number: int, deposit_id: bytes, deposit: UserDeposit) -> bool:
        """Put a deposit into a block; False if it is there already, so that it may be forwarded more than once.

        Two op-nodes may know different deposits for a moment; only the view of the one that opens the epoch's first
        block counts, the others import its payload. Raises DepositRefused where a bound is reached or the id is taken.
        """
        there = self._deposits.setdefault(number, {})
        if deposit_id in there:
            if there[deposit_id] != deposit:
                raise DepositRefused(f"deposit {deposit_id.hex()} of L1 block {number} is another one")
            return False
        if len(there) >= DEPOSITS_PER_BLOCK_MAX or self._deposits_total >= DEPOSITS_TOTAL_MAX:
            raise DepositRefused(f"L1 block {number} takes no further deposit")
        there[deposit_id] = deposit
        self._deposits_total += 1
        return True

    def _draw(self, purpose: bytes, number: int) -> bytes:
        return keccak256(b"simulated L1\0" + self._seed + b"\0" + purpose + b"\0" + number.to_bytes(8, "big"))
