"""Replaying real blocks from a witness: parent header, payload attributes, the trie nodes they read, the expected hash.

The format is that of kona's executor fixtures (JSON, perhaps gzipped): `chain`, `parent_header`, `payload_attributes`,
`witness` (hash → bytes), `rollup_config`, `expected_block_hash`.
"""

import gzip
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.errors import MissingState
from flashblocks.execution.header import Header
from flashblocks.execution.open_block import OpenBlock
from flashblocks.execution.state import WorldState
from flashblocks.execution.transaction import decode_transaction, recover_sender
from flashblocks.wire.engine import PayloadAttributes

ENGINES = ("fast", "stock")
FIXTURE_LIMIT_BYTES = 1 << 30


class Fixture(msgspec.Struct, frozen=True):
    """One real block to rebuild."""

    name: str
    spec: ChainSpec
    parent: Header
    attributes: PayloadAttributes
    witness: dict[bytes, bytes]
    expected_hash: bytes


class ReplayResult(msgspec.Struct, frozen=True):
    """What a replay found. `cpu_ms` is 0 where no clock was given."""

    file: str
    hash_match: bool
    gas: int
    cpu_ms: float
    mgas_per_s: float
    block_hash: bytes
    expected_hash: bytes
    error: str | None = None  # why there is no block to compare

    @staticmethod
    def failed(file: str, error: str) -> "ReplayResult":
        """A file that could not be replayed."""
        return ReplayResult(file, False, 0, 0.0, 0.0, b"", b"", error)


def load_fixture(path: str | Path) -> Fixture:
    """Read a fixture file; raises OSError, or ValueError for one that is not a fixture."""
    raw = Path(path).read_bytes()
    if raw[:2] == b"\x1f\x8b":
        with gzip.open(path) as stream:
            raw = stream.read(FIXTURE_LIMIT_BYTES)
    try:
        return parse_fixture(json.loads(raw), Path(path).name)
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"not a block fixture: {type(error).__name__}: {error}") from error


def parse_fixture(vector: dict[str, Any], name: str) -> Fixture:
    """A fixture from its JSON object. Forks whose time `rollup_config` leaves out begin when they did on that chain."""
    rollup = vector["rollup_config"]
    op_config = rollup.get("chain_op_config") or {}
    spec = ChainSpec.with_times(
        rollup["l2_chain_id"],
        rollup,
        eip1559_denominator=op_config.get("eip1559DenominatorCanyon", 250),
        eip1559_elasticity=op_config.get("eip1559Elasticity", 6),
    )
    attributes = vector["payload_attributes"]
    minimum, params, gas_limit = (attributes.get(name) for name in ("minBaseFee", "eip1559Params", "gasLimit"))
    return Fixture(
        name=name,
        spec=spec,
        parent=_header(vector["parent_header"]),
        attributes=PayloadAttributes(
            timestamp=_number(attributes["timestamp"]),
            prev_randao=_data(attributes["prevRandao"]),
            fee_recipient=_data(attributes["suggestedFeeRecipient"]),
            parent_beacon_block_root=_data(attributes["parentBeaconBlockRoot"]),
            transactions=tuple(_data(raw) for raw in attributes.get("transactions") or ()),
            no_tx_pool=True,
            gas_limit=_number(vector["parent_header"]["gasLimit"] if gas_limit is None else gas_limit),
            eip1559_params=bytes(8) if params is None else _data(params),
            min_base_fee=None if minimum is None else _number(minimum),
        ),
        witness={bytes.fromhex(key.removeprefix("0x")): _data(value) for key, value in vector["witness"].items()},
        expected_hash=_data(vector["expected_block_hash"]),
    )


def build(fixture: Fixture, sub_blocks: int = 1) -> Header:
    """Rebuild the block on our engine, sealing after each of `sub_blocks` pieces; gives the last seal's header."""
    state = WorldState.from_witness(fixture.parent.state_root, fixture.witness)
    ancestors = AncestorsInWitness(fixture.parent, fixture.witness)
    block = OpenBlock.start(fixture.spec, fixture.parent, state, fixture.attributes, block_hashes=ancestors)
    raws = fixture.attributes.transactions
    at = 0
    for piece in range(sub_blocks):
        end = len(raws) * (piece + 1) // sub_blocks
        for raw in raws[at:end]:
            tx = decode_transaction(raw)
            recover_sender(tx)
            block.append(tx)
        at = end
        try:
            sealed = block.seal()
        except MissingState:
            # A witness is complete for the block as a whole. A slot that is emptied and filled again within it may
            # need, for the root in between, a node that nobody else read.
            if at == len(raws):
                raise
    return sealed.header


class AncestorsInWitness:
    """BLOCKHASH from a witness that holds ancestor headers by their hash: follows parent hashes as far as it goes."""

    def __init__(self, parent: Header, witness: dict[bytes, bytes]) -> None:
        self._hashes = {parent.number: parent.hash, parent.number - 1: parent.parent_hash}
        self._oldest = parent.number - 1
        self._witness = witness

    def __call__(self, number: int) -> bytes | None:
        """The hash of an ancestor, None where the witness does not reach."""
        while number < self._oldest:
            encoded = self._witness.get(self._hashes[self._oldest])
            if encoded is None:
                return None
            self._hashes[self._oldest - 1] = Header.from_rlp(encoded).parent_hash
            self._oldest -= 1
        return self._hashes.get(number)


def load_engine() -> None:
    """Import py-evm, make its tables and load the native curves: a process pays for them once, not a block."""
    from flashblocks.execution.compiler.program import steps_for
    from flashblocks.execution.evm import FRAME_CLASSES, call
    from flashblocks.execution.precompiles import warm_up

    warm_up()
    steps_for(FRAME_CLASSES["isthmus"].opcodes, call)


def replay_file(
    path: str | Path, sub_blocks: int = 1, engine: str = "fast", clock: Callable[[], float] | None = None
) -> ReplayResult:
    """Rebuild the block of one fixture file and compare its hash.

    `engine` is "fast" (ours) or "stock" (py-evm's own state, transaction layer and interpreter). `clock` gives CPU
    seconds (`time.process_time`).
    """
    fixture = load_fixture(path)
    if engine not in ENGINES:
        raise ValueError(f"engine must be one of {', '.join(ENGINES)}")
    if sub_blocks < 1:
        raise ValueError("sub_blocks must be at least 1")
    if engine == "stock":
        from flashblocks.execution.stock import build_stock

        started = clock() if clock else 0.0
        header = build_stock(fixture, sub_blocks)
    else:
        load_engine()
        started = clock() if clock else 0.0
        header = build(fixture, sub_blocks)
    seconds = clock() - started if clock else 0.0
    return ReplayResult(
        file=str(path),
        hash_match=header.hash == fixture.expected_hash,
        gas=header.gas_used,
        cpu_ms=seconds * 1e3,
        mgas_per_s=header.gas_used / seconds / 1e6 if seconds else 0.0,
        block_hash=header.hash,
        expected_hash=fixture.expected_hash,
    )


def _header(fields: dict[str, Any]) -> Header:
    requests = fields.get("requestsHash")
    return Header(
        parent_hash=_data(fields["parentHash"]),
        uncles_hash=_data(fields["sha3Uncles"]),
        fee_recipient=_data(fields["miner"]),
        state_root=_data(fields["stateRoot"]),
        transactions_root=_data(fields["transactionsRoot"]),
        receipts_root=_data(fields["receiptsRoot"]),
        logs_bloom=_data(fields["logsBloom"]),
        difficulty=_number(fields["difficulty"]),
        number=_number(fields["number"]),
        gas_limit=_number(fields["gasLimit"]),
        gas_used=_number(fields["gasUsed"]),
        timestamp=_number(fields["timestamp"]),
        extra_data=_data(fields["extraData"]),
        prev_randao=_data(fields["mixHash"]),
        nonce=_data(fields["nonce"]),
        base_fee_per_gas=_number(fields["baseFeePerGas"]),
        withdrawals_root=_data(fields["withdrawalsRoot"]),
        blob_gas_used=_number(fields["blobGasUsed"]),
        excess_blob_gas=_number(fields["excessBlobGas"]),
        parent_beacon_root=_data(fields["parentBeaconBlockRoot"]),
        requests_hash=None if requests is None else _data(requests),
    )


def _data(text: str) -> bytes:
    return bytes.fromhex(text.removeprefix("0x"))


def _number(value: int | str) -> int:
    return int(value, 0) if isinstance(value, str) else value
