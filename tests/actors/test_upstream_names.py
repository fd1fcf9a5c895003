"""Every metric that op-rbuilder, rollup-boost and op-conductor export is exported here, under its name, at once."""

from pathlib import Path

from actors.rpc_client import RpcClient
from tests.actors.boost_rig import Rig, running
from tests.actors.group_under_test import Group, cluster, until

BUILDER_COUNTERS_AND_GAUGES = """
    block_built_success block_synced_success messages_sent_count invalid_built_blocks_count invalid_synced_blocks_count
    total_block_built_duration_gauge transaction_pool_fetch_duration_gauge state_root_calculation_duration_gauge
    sequencer_tx_duration_gauge state_transition_merge_duration_gauge payload_transaction_simulation_duration_gauge
    payload_num_tx_considered_gauge payload_byte_size_gauge payload_num_tx_gauge payload_num_tx_simulated_gauge
    payload_num_tx_simulated_success_gauge payload_num_tx_simulated_fail_gauge payload_reverted_tx_gas_used
    reduced_flashblocks_number missing_flashblocks_count bundle_requests valid_bundles failed_bundles bundles_reverted
    tx_da_size_exceeded_total block_da_size_exceeded_total block_gas_limit_exceeded_total
    block_uncompressed_size_exceeded_total payload_num_backruns_considered_gauge payload_num_backruns_successful_gauge
    backrun_transaction_processing_duration_gauge continuous_trigger_ready_total continuous_trigger_miss_total
    continuous_candidates_evaluated continuous_candidates_improved flashblock_publish_suppressed_total
    payload_job_cancellation_resolved payload_job_cancellation_new_fcu payload_job_cancellation_deadline
    payload_job_cancellation_complete payload_job_cancellation_error ws_publish_lagged p2p_forward_lagged
    engine_feedback_lagged fanout_no_subscribers
"""
BUILDER_SUMMARIES = """
    flashblock_count total_block_built_duration flashblock_build_duration flashblock_sync_duration
    flashblock_byte_size_histogram flashblock_num_tx_histogram transaction_pool_fetch_duration
    state_root_calculation_duration sequencer_tx_duration state_transition_merge_duration
    payload_transaction_simulation_duration payload_num_tx_considered payload_byte_size payload_num_tx
    payload_num_tx_simulated payload_num_tx_simulated_success payload_num_tx_simulated_fail successful_tx_gas_used
    reverted_tx_gas_used tx_simulation_duration tx_byte_size fcu_arrival_delay bundle_receive_duration
    block_uncompressed_size payload_num_backruns_considered payload_num_backruns_successful
    backrun_transaction_processing_duration continuous_build_duration continuous_trigger_fallback_wait_duration
    continuous_fee_improvement
"""
BOOST_COUNTERS_AND_GAUGES = """
    flashblocks_ws_inbound_reconnect_attempts flashblocks_ws_inbound_connection_status
    flashblocks_ws_inbound_messages_received flashblocks_service_extend_payload_errors
    flashblocks_service_current_payload_id_mismatch flashblocks_service_pending_flashblocks_buffered
    flashblocks_service_pending_flashblocks_dropped flashblocks_service_messages_processed
    flashblocks_service_flashblocks_gauge flashblocks_service_flashblocks_counter
    flashblocks_service_flashblocks_missing_gauge flashblocks_service_flashblocks_missing_counter execution_mode
"""
BOOST_SUMMARIES = """
    flashblocks_service_flashblocks_missing_histogram exchange_capabilities_duration fork_choice_updated_v3_duration
    get_payload_v3_duration get_payload_v4_duration get_payload_v5_duration new_payload_v3_duration
    new_payload_v4_duration flashblocks_fork_choice_updated_v3_duration forward_duration block_building_gas_delta
    block_building_tx_count_delta
"""


def missing(text: str, prefix: str, plain: str, summaries: str) -> list[str]:
    lines = {line.split(" ")[0].partition("{")[0] for line in text.splitlines() if not line.startswith("#")}
    wanted = [prefix + name for name in plain.split()]
    wanted += [f"{prefix}{name}_{part}" for name in summaries.split() for part in ("sum", "count")]
    return [name for name in wanted if name not in lines]


async def metrics(rig: Rig, of: str) -> str:
    server = rig.boost.engine_server if of == "boost" else rig.builder.client.engine_server
    rpc = RpcClient(server.url, jwt_secret=rig.files.secret)
    try:
        return (await rpc.get("/metrics"))[1].decode()
    finally:
        await rpc.close()


async def test_all_names_are_there_before_the_first_block_and_after_it(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        for nonce in range(2):
            builder, boost = await metrics(rig, "builder"), await metrics(rig, "boost")
            assert missing(builder, "op_rbuilder_", BUILDER_COUNTERS_AND_GAUGES, BUILDER_SUMMARIES) == []
            assert missing(boost, "rollup_boost_", BOOST_COUNTERS_AND_GAUGES, BOOST_SUMMARIES) == []
            assert 'rollup_boost_rpc_blocks_created{source="l2"}' in boost
            assert 'rollup_boost_builder_info{build_timestamp="",git_sha="",version="' in boost
            assert '\nbuilder_info{build_timestamp="",git_sha="",version="' in builder
            assert "op_rbuilder_flags_flashblock_time_ms 200.0" in builder
            await rig.send(0, nonce)
            await rig.block(flashblocks=2)


LEAST = {
    "op_rbuilder_block_built_success": 1,
    "op_rbuilder_messages_sent_count": 2,
    "op_rbuilder_successful_tx_gas_used_count": 1,
    "op_rbuilder_tx_simulation_duration_count": 1,
    "op_rbuilder_tx_byte_size_count": 1,
    "op_rbuilder_payload_num_tx_gauge": 2,
    "op_rbuilder_transaction_pool_fetch_duration_count": 1,
    "op_rbuilder_continuous_candidates_evaluated": 1,
}


async def test_what_happens_is_counted(tmp_path: Path) -> None:
    async with running(tmp_path) as rig:
        await rig.send(0, 0)
        await rig.block(flashblocks=2)
        lines = [line.split(" ") for line in (await metrics(rig, "builder")).splitlines()]
        values = {line[0]: float(line[1]) for line in lines if line[0] in LEAST}
        assert {name: value for name, value in values.items() if value < LEAST[name]} == {}
        assert values.keys() == LEAST.keys()


CONDUCTOR = """
    info{version= up healthchecks_count{error="",success="true"} leader_transfers_count{success="true"}
    leader_transfers_count{success="false"} sequencer_starts_count{success="true"}
    sequencer_starts_count{success="false"} sequencer_stops_count{success="true"}
    sequencer_stops_count{success="false"} loop_execution_time_sum loop_execution_time_count
    rollup_boost_connection_attempts_count{source="ws://127.0.0.1: websocket_clients_connected
"""
LOOP_BUCKETS_S = ["0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5", "1.0", "2.5", "5.0", "10.0", "+Inf"]


async def conductor_metrics(group: Group) -> str:
    rpc = group.rpc()
    try:
        return (await rpc.get("/metrics"))[1].decode()
    finally:
        await rpc.close()


async def test_a_conductors_names_and_labels_are_op_conductors(tmp_path: Path) -> None:
    async with cluster(tmp_path) as made:
        group = made.groups[0]
        await until(lambda: group.sequences and group.head >= 1, "a block")
        text = await conductor_metrics(group)
        lines = text.splitlines()
        missing_names = [name for name in CONDUCTOR.split() if not any(_begins(line, name) for line in lines)]
        assert missing_names == []
        buckets = [line for line in lines if line.startswith("op_conductor_loop_execution_time_bucket")]
        assert [line.split('"')[1] for line in buckets] == LOOP_BUCKETS_S
        values = {line.rpartition(" ")[0]: float(line.rpartition(" ")[2]) for line in lines if line[0] != "#"}
        assert values["op_conductor_up"] == 1
        assert values['op_conductor_sequencer_starts_count{success="true"}'] == 1
        assert values["op_conductor_loop_execution_time_count"] >= 1
        assert values['op_conductor_healthchecks_count{error="",success="true"}'] >= 1
        changed = 'op_conductor_state_changes_count{active="true",healthy="true",leader="true"}'
        assert values[changed] >= 1
        source = f'source="{group.boost.ws_url}",success="true"'
        assert values[f"op_conductor_rollup_boost_connection_attempts_count{{{source}}}"] == 1


def _begins(line: str, name: str) -> bool:
    """`name` is a metric's with the labels it begins with, or without any."""
    return line.startswith(f"op_conductor_{name}" if "{" in name else f"op_conductor_{name} ")
