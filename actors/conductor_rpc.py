"""`conductor_*` with op-conductor's names, parameters, results and texts; the leader-only proxies; private methods."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

from actors.conductor_commit import COMMIT_S_MAX, seal_command
from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown
from actors.rpc_server import CALLER, Method
from flashblocks.wire.assembly import attributes_of
from flashblocks.wire.engine import Envelope
from flashblocks.wire.flashblock import decode_body
from flashblocks.wire.hexadecimal import data, quantity
from flashblocks.wire.jsonrpc import SERVER_ERROR, RpcError
from raft.commands import Accepted, Reason, Refused
from raft.membership import MemberChange

if TYPE_CHECKING:
    from actors.conductor import Conductor

PROXY_S_MAX = 5.0
DIAL_S_MAX = 5.0
PAUSE_S_MAX = 5.0
MEMBERSHIP_S_MAX = 5.0
NO_NONVOTERS = "this cluster has no members without a vote: PySyncObj replicates to voters only"
NOT_LEADER = "node is not the leader"
NOBODY_FIT = "no other member is fit to lead, all are paused or sick; conductor_transferLeaderToServer names one anyway"
LEADERSHIP_LOST = "leadership lost while committing log"
REFUSING = "refusing to proxy request to non-leader sequencer"
MISMATCHES = (Reason.PREFIX_MISMATCH, Reason.FLASHBLOCKS_COMMITTED, Reason.OTHER_PAYLOAD)
LEADER_REASONS = (
    Reason.NOT_LEADER,
    Reason.TRANSFERRING,
    Reason.STALE_EPOCH,
    Reason.UNCLAIMED_EPOCH,
    Reason.WRONG_OWNER,
)


class ConductorRpc:
    """The methods of one conductor."""

    def __init__(self, conductor: Conductor) -> None:
        self._conductor = conductor

    def methods(self) -> dict[str, Method]:
        """Name → coroutine, as `RpcServer` takes them."""
        own: dict[str, Method] = {
            "overrideLeader": self.override_leader,
            "leaderOverridden": self.leader_overridden,
            "pause": self.pause,
            "resume": self.resume,
            "stop": self.stop,
            "paused": self.paused,
            "stopped": self.stopped,
            "active": self.active,
            "sequencerHealthy": self.sequencer_healthy,
            "leader": self.leader,
            "leaderWithID": self.leader_with_id,
            "addServerAsVoter": self.add_server,
            "addServerAsNonvoter": self.add_nonvoter,
            "demoteVoter": self.demote_voter,
            "removeServer": self.remove_server,
            "transferLeader": self.transfer_leader,
            "transferLeaderToServer": self.transfer_leader_to_server,
            "clusterMembership": self.cluster_membership,
            "commitUnsafePayload": self.commit_unsafe_payload,
        }
        return {
            **{f"conductor_{name}": method for name, method in own.items()},
            **(self._proxies() if self._conductor.settings.rpc_enable_proxy else {}),
            "flashblocks_openBlock": self.open_block,
            "flashblocks_readiness": self.readiness,
            "flashblocks_status": self.status,
        }

    def _proxies(self) -> dict[str, Method]:
        op_node, execution = self._conductor.sequencer.client, self._conductor.execution
        return {
            "eth_getBlockByNumber": self._leader_only(execution, "eth_getBlockByNumber"),
            "optimism_outputAtBlock": self._leader_only(op_node, "optimism_outputAtBlock"),
            "optimism_syncStatus": self._leader_only(op_node, "optimism_syncStatus"),
            "optimism_rollupConfig": self._leader_only(op_node, "optimism_rollupConfig"),
            "admin_sequencerActive": self._leader_only(op_node, "admin_sequencerActive"),
            "miner_setMaxDASize": self._pass_on(execution, "miner_setMaxDASize"),
        }

    # Leadership and the loop

    async def override_leader(self, override: bool) -> None:
        """Disaster recovery: lead without a majority. This gives up what a majority guarantees."""
        if not isinstance(override, bool):
            raise RpcError(SERVER_ERROR, "overrideLeader: expected a boolean")
        await self._conductor.override.set(override)

    async def leader_overridden(self) -> bool:
        """Whether an operator has overridden the leader."""
        return self._conductor.overridden

    async def pause(self) -> None:
        """Let the control loop act on nothing; returns when what was under way is through."""
        self._conductor.control.paused = True
        deadline = time.monotonic() + PAUSE_S_MAX
        while self._conductor.control.busy is not None:
            if time.monotonic() > deadline:
                raise RpcError(SERVER_ERROR, "pause timed out")
            await asyncio.sleep(0.01)

    async def resume(self) -> None:
        """Let the control loop act again, on what the op-node says now."""
        if self._conductor.control.stopped:
            raise RpcError(SERVER_ERROR, "cannot resume a stopped conductor")
        self._conductor.resume(await self._conductor.sequencer.active())

    async def stop(self) -> None:
        """Stop acting for good; a leader hands on first. The node goes on voting and replicating."""
        conductor = self._conductor
        conductor.control.stopped = True
        if conductor.override.in_force:
            await conductor.override.set(False)
        if conductor.raft.is_leader:
            await conductor.transfer(None)
            await conductor.stop_sequencer()

    async def paused(self) -> bool:
        """Whether the control loop is paused."""
        return self._conductor.control.paused

    async def stopped(self) -> bool:
        """Whether the conductor was stopped."""
        return self._conductor.control.stopped

    async def active(self) -> bool:
        """Neither paused nor stopped."""
        return not (self._conductor.control.paused or self._conductor.control.stopped)

    async def sequencer_healthy(self) -> bool:
        """The last verdict on the own group."""
        return self._conductor.control.health.healthy

    async def leader(self) -> bool:
        """Whether this node leads, by its own view or by an operator's word."""
        return self._leads()

    async def leader_with_id(self) -> dict[str, Any]:
        """The leader as this node sees it."""
        if self._conductor.overridden:
            return {"id": "N/A (Leader overridden)", "addr": "N/A", "suffrage": 0}
        leader = self._conductor.raft.leader()
        if leader is None:
            return {"id": "", "addr": "", "suffrage": 0}
        return {"id": leader, "addr": self._addresses().get(leader, ""), "suffrage": 0}

    async def transfer_leader(self) -> None:
        """Hand leadership to the fittest voter; nothing to do for a follower."""
        if self._conductor.raft.is_leader and self._conductor.nobody_fit:
            raise RpcError(SERVER_ERROR, NOBODY_FIT)
        await self._transfer(None)

    async def transfer_leader_to_server(self, server_id: str, addr: str) -> None:
        """Hand leadership to that member."""
        peers = self._addresses()
        if not self._conductor.raft.is_leader:
            raise RpcError(SERVER_ERROR, NOT_LEADER)
        if peers.get(server_id) is None or (addr and peers[server_id] != addr):
            raise RpcError(SERVER_ERROR, f"server {server_id} at {addr} is not a voter of this cluster")
        await self._transfer(server_id)

    async def _transfer(self, target: str | None) -> None:
        conductor = self._conductor
        if not conductor.raft.is_leader:
            return
        if not await conductor.transfer(target):
            raise RpcError(SERVER_ERROR, "leadership transfer timeout")

    # Membership

    def _addresses(self) -> dict[str, str]:
        return {member.id: member.address for member in self._conductor.raft.members()}

    async def cluster_membership(self) -> dict[str, Any]:
        """All members; every one of them votes. The version grows with every change."""
        servers = [{"id": name, "addr": addr, "suffrage": 0} for name, addr in self._addresses().items()]
        return {"servers": servers, "version": self._conductor.raft.membership_version}

    async def add_server(self, server_id: str, addr: str, version: int = 0) -> None:
        """Add a voter, whose conductor must be up (upstream dials first, too); a member already there is a success."""
        await self._dial(addr)
        self._check_change(version)
        if self._addresses().get(server_id) != addr:
            await self._change(MemberChange(str(server_id), str(addr)))

    async def remove_server(self, server_id: str, version: int = 0) -> None:
        """Remove a member other than the leader; what is no member is a success."""
        self._check_change(version)
        if server_id in self._addresses():
            await self._change(MemberChange(server_id, None))

    async def add_nonvoter(self, server_id: str, addr: str, version: int = 0) -> None:
        """Refused with the reason."""
        raise RpcError(SERVER_ERROR, f"cannot add {server_id} at {addr}: {NO_NONVOTERS}")

    async def demote_voter(self, server_id: str, version: int = 0) -> None:
        """Refused with the reason."""
        raise RpcError(SERVER_ERROR, f"cannot demote {server_id}: {NO_NONVOTERS}")

    def _check_change(self, version: int) -> None:
        raft = self._conductor.raft
        if not raft.is_leader:
            raise RpcError(SERVER_ERROR, NOT_LEADER)
        latest = raft.membership_version
        if version not in (0, latest):
            raise RpcError(SERVER_ERROR, f"configuration changed since {version} (latest is {latest})")

    async def _change(self, change: MemberChange) -> None:
        conductor = self._conductor
        outcome = await conductor.raft.change_member(change, MEMBERSHIP_S_MAX)
        conductor.log.warning("membership", node=change.node, address=change.address, outcome=str(outcome))
        if isinstance(outcome, Refused):
            text = NOT_LEADER if outcome.reason is Reason.NOT_LEADER else outcome.detail
            raise RpcError(SERVER_ERROR, text)
        if outcome is not None:
            text = "timed out enqueuing operation" if outcome.reason == "timeout" else LEADERSHIP_LOST
            raise RpcError(SERVER_ERROR, text)

    @staticmethod
    async def _dial(addr: str) -> None:
        host, _, port = str(addr).rpartition(":")
        try:
            async with asyncio.timeout(DIAL_S_MAX):
                _, writer = await asyncio.open_connection(host, int(port))
            writer.close()
        except (OSError, ValueError, TimeoutError) as error:
            raise RpcError(SERVER_ERROR, f"failed to dial server: {error or 'timed out'}") from None

    # The ledger

    async def commit_unsafe_payload(self, obj: Any) -> None:
        """Have a payload committed; an error text that begins with `prefix mismatch` asks for another seal."""
        envelope = Envelope.from_json(obj)
        conductor = self._conductor
        epoch = conductor.stream.publisher.epoch
        if epoch is None:
            raise RpcError(SERVER_ERROR, NOT_LEADER)
        view = conductor.override.ledger
        command = seal_command(view, epoch, conductor.settings.name, envelope)
        if command is None:
            assert view.open is not None
            committed = f"block {view.open.number} must be its flashblocks 0..{view.open.last_index}"
            raise RpcError(SERVER_ERROR, f"prefix mismatch: {committed}")
        payload = envelope.payload
        conductor.trace.sealing(payload.block_number, payload.timestamp - conductor.settings.block_time_s)
        outcome = await conductor.override.propose(command, COMMIT_S_MAX)
        if isinstance(outcome, Accepted):
            return
        if not isinstance(outcome, Refused):
            text = "timed out enqueuing operation" if outcome.reason == "timeout" else LEADERSHIP_LOST
            raise RpcError(SERVER_ERROR, text)
        conductor.log.warning(
            "payload refused",
            block=envelope.payload.block_number,
            reason=outcome.reason.value,
            traceparent=CALLER.get().traceparent,
        )
        if outcome.reason in MISMATCHES:
            raise RpcError(SERVER_ERROR, f"prefix mismatch: {outcome.detail}")
        text = NOT_LEADER if outcome.reason in LEADER_REASONS else f"{outcome.reason.value}: {outcome.detail}"
        raise RpcError(SERVER_ERROR, text)

    async def open_block(self) -> dict[str, Any] | None:
        """The open block as its op-node has to resume it; null when there is none. For the leader's op-node only."""
        if self._conductor.stream.publisher.epoch is None:
            raise RpcError(SERVER_ERROR, NOT_LEADER)
        block = self._conductor.override.ledger.open
        if block is None:
            return None
        return {
            "number": quantity(block.number),
            "payloadId": data(block.payload_id),
            "parentHash": data(block.parent_hash),
            "attributes": attributes_of(decode_body(block.entries[0].body)).to_json(),
            "lastIndex": quantity(block.last_index),
        }

    # For the other conductors and for operators

    async def readiness(self) -> dict[str, Any]:
        """How fit this group is to lead."""
        control = self._conductor.control
        return {
            "node": self._conductor.settings.name,
            "readiness": control.readiness.value,
            "headNumber": self._conductor.health.head_number,
            "paused": control.paused or control.stopped,
            "alone": self._conductor.override.alone is not None,
        }

    async def status(self) -> dict[str, Any]:
        """What `flashblocks status` shows."""
        return self._conductor.status()

    # Proxies

    def _leads(self) -> bool:
        return self._conductor.overridden or self._conductor.raft.is_leader

    def _leader_only(self, client: RpcClient, method: str) -> Callable[..., Awaitable[Any]]:
        """Ask the backend first and look at leadership then, so that nothing is served after it is lost."""

        async def proxy(*params: Any) -> Any:
            answer = await _forward(client, method, params)
            if not self._leads():
                raise RpcError(SERVER_ERROR, REFUSING)
            return answer

        return proxy

    @staticmethod
    def _pass_on(client: RpcClient, method: str) -> Callable[..., Awaitable[Any]]:
        async def proxy(*params: Any) -> Any:
            return await _forward(client, method, params)

        return proxy


async def _forward(client: RpcClient, method: str, params: tuple[Any, ...]) -> Any:
    try:
        return await client.call(method, *params, timeout_s=PROXY_S_MAX)
    except RpcRefused as error:
        raise RpcError(error.code, error.message, error.data) from None
    except RpcUnknown as error:
        raise RpcError(SERVER_ERROR, str(error)) from None
