"""The op-node's RPC: `admin_*`, `optimism_*`, `opp2p_*` with op-node's names and texts, and our private methods."""

from __future__ import annotations

import os
import time
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from actors.engine_client import EngineRefused, EngineUnknown
from actors.op_node_deposits import deposit_from_json
from actors.rpc_client import RpcRefused, RpcUnknown
from actors.rpc_server import Method
from flashblocks.sequencing.driver import StartRefused
from flashblocks.sequencing.l1 import DepositRefused, L1Block
from flashblocks.sequencing.references import reference_of_block
from flashblocks.wire.engine import Envelope
from flashblocks.wire.hexadecimal import WireError, data, quantity, to_bytes, to_int
from flashblocks.wire.jsonrpc import SERVER_ERROR, RpcError
from flashblocks.wire.keccak import keccak256
from tracing.logs import set_level

if TYPE_CHECKING:
    from actors.op_node import OpNode

OUTPUT_VERSION = b"\0" * 32
LOG_LEVELS = {
    "trace": "debug",
    "debug": "debug",
    "info": "info",
    "warn": "warning",
    "warning": "warning",
    "error": "error",
    "crit": "error",
}
"""geth's names, and ours."""


class OpNodeRpc:
    """The methods of one op-node."""

    def __init__(self, node: OpNode) -> None:
        self._node = node

    def methods(self) -> dict[str, Method]:
        """Name → coroutine, as `RpcServer` takes them."""
        return {
            "admin_startSequencer": self.start_sequencer,
            "admin_stopSequencer": self.stop_sequencer,
            "admin_sequencerActive": self.sequencer_active,
            "admin_postUnsafePayload": self.post_unsafe_payload,
            "admin_overrideLeader": self.override_leader,
            "admin_conductorEnabled": self.conductor_enabled,
            "admin_setRecoverMode": self.set_recover_mode,
            "admin_setSequencerMaxSafeLag": self.set_max_safe_lag,
            "admin_resetDerivationPipeline": self.reset,
            "admin_setLogLevel": self.set_log_level,
            "optimism_syncStatus": self.sync_status,
            "optimism_rollupConfig": self.rollup_config,
            "optimism_outputAtBlock": self.output_at_block,
            "optimism_version": self.version,
            "opp2p_self": self.p2p_self,
            "opp2p_peerStats": self.peer_stats,
            "flashblocks_injectDeposit": self.inject_deposit,
            "flashblocks_placeDeposit": self.place_deposit,
            "flashblocks_deposits": self.deposits,
            "flashblocks_status": self.status,
        }

    async def start_sequencer(self, block_hash: str) -> None:
        """Become active on that head, if the conductor says that this group leads."""
        wanted = to_bytes(block_hash, 32, "hash")
        node = self._node
        if node.settings.conductor_enabled and not node.overridden:
            try:
                leads = await node.conductor.call("conductor_leader")
            except (RpcRefused, RpcUnknown) as error:
                raise RpcError(SERVER_ERROR, f"sequencer leader check failed: {error}") from None
            if leads is not True:
                raise RpcError(SERVER_ERROR, "sequencer is not the leader, aborting")
        try:
            await node.start_sequencer(wanted)
        except StartRefused as error:
            raise RpcError(SERVER_ERROR, str(error)) from None

    async def stop_sequencer(self) -> str:
        """Stop and return the hash of the last committed head."""
        node = self._node
        if not node.driver.active:
            raise RpcError(SERVER_ERROR, "sequencer not running")
        head = await node.stop_sequencer()
        return data(b"\0" * 32 if head is None else head.hash)

    async def sequencer_active(self) -> bool:
        """Whether the sequencer is building."""
        return self._node.driver.active

    async def post_unsafe_payload(self, envelope: Any) -> None:
        """Import a committed payload; a known one is a success."""
        try:
            await self._node.import_payload(Envelope.from_json(envelope))
        except EngineRefused as error:
            text = str(error)
            bad_hash = "hash" in text and "INVALID" in text
            raise RpcError(SERVER_ERROR, f"payload has bad block hash: {text}" if bad_hash else text) from None
        except EngineUnknown as error:
            raise RpcError(SERVER_ERROR, str(error)) from None

    async def override_leader(self) -> None:
        """Disaster recovery: sequence without asking the conductor, from now until a restart."""
        self._node.log.error("leader overridden: payloads are inserted without being committed by a majority")
        self._node.overridden = True

    async def conductor_enabled(self) -> bool:
        """Whether a conductor decides here."""
        return self._node.settings.conductor_enabled

    async def set_recover_mode(self, on: bool) -> None:
        """Build without the pool."""
        self._node.driver.recover_mode = bool(on)

    async def set_max_safe_lag(self, lag: Any) -> None:
        """Pause building while the head is that many blocks ahead of the safe head; 0 for no bound."""
        self._node.driver.max_safe_lag = to_int(lag, "lag")

    async def reset(self) -> None:
        """Look at the engine's head again."""
        self._node.refresh()

    async def set_log_level(self, level: str) -> None:
        """Change what this op-node logs, by geth's names of levels; at once, until it is started again."""
        ours = LOG_LEVELS.get(str(level).lower())
        if ours is None:
            raise RpcError(SERVER_ERROR, f"unknown level: {level}")
        set_level(self._node.log, ours)

    async def sync_status(self) -> dict[str, Any]:
        """Heads of L1 and L2, op-node's shape."""
        chain, l1_head = self._node.chain, self._node.l1.head(time.time())
        head = chain.head
        if head is None:
            raise RpcError(SERVER_ERROR, "the engine's head is not known yet")
        l1, unsafe, safe = _l1_ref(l1_head), head.to_json(), chain.labels.safe.to_json()
        finalized_l1 = _l1_ref(self._node.l1.block(chain.labels.finalized.l1_origin.number))
        return {
            "current_l1": l1,
            "current_l1_finalized": finalized_l1,
            "head_l1": l1,
            "safe_l1": _l1_ref(self._node.l1.block(chain.labels.safe.l1_origin.number)),
            "finalized_l1": finalized_l1,
            "unsafe_l2": unsafe,
            "safe_l2": safe,
            "finalized_l2": chain.labels.finalized.to_json(),
            "pending_safe_l2": safe,
            "cross_unsafe_l2": unsafe,
            "local_safe_l2": safe,
        }

    async def rollup_config(self) -> dict[str, Any]:
        """The chain's configuration."""
        return self._node.config.to_json()

    async def output_at_block(self, number: Any) -> dict[str, Any]:
        """Output root of a block (OP specs, protocol/proposals): version, state root, withdrawals root, block hash."""
        wanted = to_int(number, "number")
        try:
            block = await self._node.engine.block(quantity(wanted))
        except (EngineRefused, EngineUnknown) as error:
            raise RpcError(SERVER_ERROR, str(error)) from None
        if block is None:
            raise RpcError(SERVER_ERROR, f"failed to get L2 block ref with sync status: block {wanted} not found")
        try:
            reference = reference_of_block(block, self._node.config.genesis_l1)
            state_root = to_bytes(block.get("stateRoot"), 32, "stateRoot")
            withdrawals_root = to_bytes(block.get("withdrawalsRoot"), 32, "withdrawalsRoot")
        except WireError as error:
            raise RpcError(SERVER_ERROR, f"block {wanted}: {error}") from None
        output = keccak256(OUTPUT_VERSION + state_root + withdrawals_root + reference.hash)
        return {
            "version": data(OUTPUT_VERSION),
            "outputRoot": data(output),
            "blockRef": reference.to_json(),
            "withdrawalStorageRoot": data(withdrawals_root),
            "stateRoot": data(state_root),
            "syncStatus": await self.sync_status(),
        }

    async def version(self) -> str:
        """Our version."""
        return f"v{version('flashblocks')}"

    async def p2p_self(self) -> dict[str, Any]:
        """Who we are; there is no libp2p host behind it."""
        return {
            "peerID": self._node.settings.name,
            "nodeID": self._node.settings.name,
            "addresses": [self._node.server.url],
        }

    async def peer_stats(self) -> dict[str, Any]:
        """How many of the other op-nodes are alive; blocks travel through the conductors, so there are no topics."""
        connected = self._node.peers_connected
        topics = {f"blocksTopic{suffix}": 0 for suffix in ("", "V2", "V3", "V4")}
        return {
            "connected": connected,
            "table": 0,
            **topics,
            "banned": 0,
            "known": len(self._node.settings.peer_op_node_urls),
        }

    async def inject_deposit(self, deposit: Any) -> dict[str, Any]:
        """Put a user deposit {from, to?, mint?, value?, gas?, data?} into the simulated L1, some seconds ahead."""
        try:
            return await self._node.deposits.inject(deposit_from_json(deposit))
        except DepositRefused as error:
            raise RpcError(SERVER_ERROR, str(error)) from None

    async def place_deposit(self, obj: Any) -> bool:
        """A peer tells of a deposit; whether it was new here."""
        try:
            return self._node.deposits.place(obj)
        except DepositRefused as error:
            raise RpcError(SERVER_ERROR, str(error)) from None

    async def deposits(self, number: Any) -> list[dict[str, Any]]:
        """The deposits of L1 block `number` and later ones."""
        return self._node.deposits.since(to_int(number, "number"))

    async def status(self) -> dict[str, Any]:
        """What `flashblocks status` shows."""
        return self._node.status() | {"pid": os.getpid()}


def _l1_ref(block: L1Block) -> dict[str, Any]:
    return {
        "hash": data(block.hash),
        "number": block.number,
        "parentHash": data(block.parent_hash),
        "timestamp": block.timestamp,
    }
