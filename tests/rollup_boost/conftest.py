"""Flashblocks made to order: well-formed in every field, executed by nobody."""

from hashlib import sha256
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from flashblocks.wire.engine import PayloadAttributes
from flashblocks.wire.flashblock import Flashblock, FlashblockBase, FlashblockDiff, FlashblockMetadata, encode_body
from flashblocks.wire.frames import FlashblockFrame, frame_of
from flashblocks.wire.payload_id import payload_id
from tests.rollup_boost.core_rig import Rig

HEAD = b"\x11" * 32
DEPOSIT = b"\x7e\x01"


def attributes(**changes: Any) -> PayloadAttributes:
    fields: dict[str, Any] = {
        "timestamp": 1_700_000_002,
        "prev_randao": b"\x22" * 32,
        "fee_recipient": b"\x42" * 20,
        "parent_beacon_block_root": b"\x33" * 32,
        "transactions": (DEPOSIT,),
        "gas_limit": 140_000_000,
        "eip1559_params": (250).to_bytes(4, "big") + (6).to_bytes(4, "big"),
        **changes,
    }
    return PayloadAttributes(**fields)


ATTRIBUTES = attributes()
ID = payload_id(HEAD, ATTRIBUTES)


def flashblock(
    index: int, salt: str = "", number: int = 100, identifier: bytes = ID, base: dict[str, Any] | None = None
) -> Flashblock:
    digest = sha256(f"{index} {salt} {number}".encode()).digest()
    opening = FlashblockBase(
        parent_beacon_block_root=ATTRIBUTES.parent_beacon_block_root,
        parent_hash=HEAD,
        fee_recipient=ATTRIBUTES.fee_recipient,
        prev_randao=ATTRIBUTES.prev_randao,
        block_number=number,
        gas_limit=ATTRIBUTES.gas_limit,
        timestamp=ATTRIBUTES.timestamp,
        extra_data=b"\0" + ATTRIBUTES.eip1559_params,
        base_fee_per_gas=7,
    )
    return Flashblock(
        identifier,
        index,
        msgspec.structs.replace(opening, **(base or {})) if index == 0 else None,
        FlashblockDiff(
            state_root=digest,
            receipts_root=digest,
            logs_bloom=b"\0" * 256,
            gas_used=21_000 * (index + 1),
            block_hash=digest,
            transactions=(DEPOSIT,) if index == 0 else (b"\x02" + digest,),
            withdrawals_root=digest,
        ),
        FlashblockMetadata(number),
    )


def frame(made: Flashblock, epoch: int = 0, parent: bytes = HEAD) -> FlashblockFrame:
    return frame_of(made, encode_body(made), parent, epoch)


@pytest.fixture
def samples() -> SimpleNamespace:
    return SimpleNamespace(
        head=HEAD, deposit=DEPOSIT, attributes=attributes, payload_id=ID, flashblock=flashblock, frame=frame
    )


@pytest.fixture
def rig(samples: SimpleNamespace) -> Rig:
    """A core that leads with a ledger, as the cluster has it."""
    return Rig(samples)
