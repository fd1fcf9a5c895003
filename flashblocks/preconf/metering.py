"""How much execution costs here: the deployed node's `base_meterBundle` and `base_meterBlockBy…`.

The times, in microseconds, are this node's own, of an interpreter: they compare transactions, not nodes.
"""

from collections.abc import Callable, Sequence
from typing import Any

from flashblocks.execution.block_state import BlockHashes, BlockState, Environment
from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.errors import InvalidTransaction
from flashblocks.execution.fees import L1Parameters, read_l1_parameters
from flashblocks.execution.header import Header
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.open_block import NO_L1_PARAMETERS
from flashblocks.execution.pool_rules import decode_for_pool
from flashblocks.execution.state import WorldState
from flashblocks.execution.system_calls import begin_block
from flashblocks.execution.transact import Outcome, apply_transaction, precompile_addresses
from flashblocks.execution.transaction import Transaction, decode_transaction, recover_sender
from flashblocks.wire.hexadecimal import WireError, data, quantity, to_bytes
from flashblocks.wire.jsonrpc import SERVER_ERROR, RpcError

BUNDLE_TRANSACTIONS_MAX = 100

Clock = Callable[[], float]


class _Metered:
    """Transactions one after the other on a state, each with the seconds it took."""

    def __init__(self, spec: ChainSpec, header: Header, state: WorldState, hashes: BlockHashes, clock: Clock) -> None:
        self.working = BlockState(state, Environment.of(spec, header, hashes))
        self._warm = precompile_addresses(self.working.environment.rules) | {header.fee_recipient}
        self._l1: L1Parameters | None = None
        self._gas_left, self._clock = header.gas_limit, clock

    def run(self, tx: Transaction) -> tuple[Outcome, float]:
        """Execute it; raises InvalidTransaction."""
        if self._l1 is None and not tx.is_deposit:
            self._l1 = read_l1_parameters(self.working, self.working.environment.rules)
        began = self._clock()
        outcome = apply_transaction(self.working, self._warm, tx, self._l1 or NO_L1_PARAMETERS, self._gas_left)
        self.working.end_transaction()
        self._gas_left -= outcome.gas_used
        return outcome, self._clock() - began


def read_bundle(obj: Any) -> tuple[Transaction, ...]:
    """The transactions of a bundle, in order; raises WireError or RpcError."""
    if not isinstance(obj, dict) or not isinstance(obj.get("txs"), list):
        raise WireError("bundle: expected an object with txs")
    if len(obj["txs"]) > BUNDLE_TRANSACTIONS_MAX:
        raise WireError(f"bundle: {len(obj['txs'])} transactions, at most {BUNDLE_TRANSACTIONS_MAX}")
    try:
        transactions = tuple(decode_for_pool(to_bytes(raw)) for raw in obj["txs"])
        for tx in transactions:
            recover_sender(tx)
    except InvalidTransaction as error:
        raise RpcError(SERVER_ERROR, f"Bundle metering failed: {error}") from None
    return transactions


def meter_bundle(
    spec: ChainSpec,
    header: Header,
    state: WorldState,
    bundle: Sequence[Transaction],
    hashes: BlockHashes,
    clock: Clock,
    index: int | None,
) -> dict[str, Any]:
    """The bundle as if it came next in the block of `header`, of which flashblock `index` is the newest."""
    metered = _Metered(spec, header, state, hashes, clock)
    results: list[dict[str, Any]] = []
    gas, fees, seconds = 0, 0, 0.0
    for tx in bundle:
        try:
            outcome, took = metered.run(tx)
        except InvalidTransaction as error:
            raise RpcError(SERVER_ERROR, f"Bundle metering failed: {error}") from None
        paid = outcome.gas_used * outcome.effective_gas_price
        gas, fees, seconds = gas + outcome.gas_used, fees + paid, seconds + took
        results.append(
            {
                "coinbaseDiff": quantity(paid),
                "ethSentToCoinbase": "0x0",
                "fromAddress": data(tx.sender),
                "gasFees": quantity(paid),
                "gasPrice": quantity(outcome.effective_gas_price),
                "gasUsed": outcome.gas_used,
                "toAddress": None if tx.to is None else data(tx.to),
                "txHash": data(tx.hash),
                "value": quantity(tx.value),
                "executionTimeUs": _us(took),
            }
        )
    began = clock()
    _ = metered.working.world().root
    answer = {
        "bundleGasPrice": quantity(fees // gas if gas else 0),
        "bundleHash": data(keccak256(b"".join(tx.hash for tx in bundle))),
        "coinbaseDiff": quantity(fees),
        "ethSentToCoinbase": "0x0",
        "gasFees": quantity(fees),
        "results": results,
        "stateBlockNumber": header.number,
        "totalGasUsed": gas,
        "totalExecutionTimeUs": _us(seconds),
        "stateRootTimeUs": _us(clock() - began),
    }
    return answer if index is None else {**answer, "stateFlashblockIndex": index}


def meter_block(
    spec: ChainSpec, header: Header, parent: WorldState, raws: Sequence[bytes], hashes: BlockHashes, clock: Clock
) -> dict[str, Any]:
    """A whole block executed again on its parent's state."""
    began = clock()
    transactions = [decode_transaction(raw) for raw in raws]
    for tx in transactions:
        _ = tx.sender
    recovered = clock()
    metered = _Metered(spec, header, parent, hashes, clock)
    begin_block(metered.working, header.parent_hash, header.parent_beacon_root)
    times = []
    for tx in transactions:
        outcome, took = metered.run(tx)
        times.append({"txHash": data(tx.hash), "gasUsed": outcome.gas_used, "executionTimeUs": _us(took)})
    executed = clock()
    _ = metered.working.world().root
    rooted = clock()
    parts = _us(recovered - began), _us(executed - recovered), _us(rooted - executed)
    return {
        "blockHash": data(header.hash),
        "blockNumber": header.number,
        "signerRecoveryTimeUs": parts[0],
        "executionTimeUs": parts[1],
        "stateRootTimeUs": parts[2],
        "totalTimeUs": sum(parts),
        "transactions": times,
    }


def _us(seconds: float) -> int:
    return round(seconds * 1_000_000)
