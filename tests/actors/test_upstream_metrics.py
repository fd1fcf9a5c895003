from prometheus_client import CollectorRegistry, generate_latest

from actors.upstream_metrics import SAMPLES_KEPT_MAX, UpstreamMetrics


def exposed(metrics: UpstreamMetrics) -> list[str]:
    registry = CollectorRegistry()
    registry.register(metrics)
    return [line for line in generate_latest(registry).decode().splitlines() if not line.startswith("# HELP")]


def test_counters_keep_their_names_without_a_suffix() -> None:
    metrics = UpstreamMetrics("op_rbuilder_")
    metrics.count("messages_sent_count")
    metrics.count("messages_sent_count", 2)
    assert exposed(metrics) == ["# TYPE op_rbuilder_messages_sent_count untyped", "op_rbuilder_messages_sent_count 3.0"]


def test_gauges_and_labels() -> None:
    metrics = UpstreamMetrics("rollup_boost_")
    metrics.gauge("execution_mode", 3)
    metrics.gauge("execution_mode", 1)
    metrics.count("rpc_blocks_created", source="l2")
    assert exposed(metrics) == [
        "# TYPE rollup_boost_execution_mode gauge",
        "rollup_boost_execution_mode 1.0",
        "# TYPE rollup_boost_rpc_blocks_created untyped",
        'rollup_boost_rpc_blocks_created{source="l2"} 1.0',
    ]
    assert metrics.value("rpc_blocks_created", source="l2") == 1
    assert metrics.value("rpc_blocks_created", source="builder") == 0


def test_summaries_have_quantiles_of_the_last_values_and_sums_of_all() -> None:
    metrics = UpstreamMetrics("x_")
    for value in range(SAMPLES_KEPT_MAX + 100):
        metrics.observe("duration", value)
    lines = exposed(metrics)
    assert 'x_duration{quantile="0"} 100.0' in lines
    assert f'x_duration{{quantile="1"}} {SAMPLES_KEPT_MAX + 99}.0' in lines
    assert f"x_duration_count {SAMPLES_KEPT_MAX + 100}.0" in lines
    assert f"x_duration_sum {sum(range(SAMPLES_KEPT_MAX + 100))}.0" in lines
