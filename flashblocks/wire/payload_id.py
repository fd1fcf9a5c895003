"""The payload id as op-geth and op-reth compute it, so that every client names one build alike."""

from __future__ import annotations

from hashlib import sha256

from flashblocks.wire.engine import PAYLOAD_ID_BYTES, PayloadAttributes
from flashblocks.wire.keccak import keccak256

PAYLOAD_ID_VERSION = 4
RLP_EMPTY_LIST = b"\xc0"


def payload_id(parent_hash: bytes, attributes: PayloadAttributes, version: int = PAYLOAD_ID_VERSION) -> bytes:
    """Return the 8 bytes that name the build of `attributes` on `parent_hash`; the first byte is the version.

    SHA-256 over the fields of Ethereum's id and then OP's: forced transactions by hash, gas limit, EIP-1559
    parameters and, from Jovian on, the minimum base fee.
    """
    digest = sha256()
    digest.update(parent_hash)
    digest.update(attributes.timestamp.to_bytes(8, "big"))
    digest.update(attributes.prev_randao)
    digest.update(attributes.fee_recipient)
    digest.update(RLP_EMPTY_LIST)  # withdrawals: Canyon made the list mandatory, OP keeps it empty
    digest.update(attributes.parent_beacon_block_root)
    if attributes.no_tx_pool or attributes.transactions:
        digest.update(bytes((attributes.no_tx_pool,)))
        digest.update(len(attributes.transactions).to_bytes(8, "big"))
        for transaction in attributes.transactions:
            digest.update(keccak256(transaction))
    digest.update(attributes.gas_limit.to_bytes(8, "big"))
    digest.update(attributes.eip1559_params)
    if attributes.min_base_fee is not None:
        digest.update(attributes.min_base_fee.to_bytes(8, "big"))
    return bytes((version,)) + digest.digest()[1:PAYLOAD_ID_BYTES]
