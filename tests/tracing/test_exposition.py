"""Many expositions as one."""

from tracing.exposition import merge, names_in

ONE = """# HELP a_total Things
# TYPE a_total counter
a_total{kind="x",text="a } b, \\"c\\""} 1.0
a_total 2.0 1700000000
# TYPE took summary
took_sum 3.5
took_count 7.0
plain 4
"""


def test_each_family_stands_once_and_every_sample_says_whose_it_is():
    merged = merge([({"name": "n0"}, ONE), ({"name": 'n"1'}, ONE)])
    assert merged.count("# TYPE a_total counter") == merged.count("# HELP a_total Things") == 1
    lines = merged.splitlines()
    assert 'a_total{kind="x",text="a } b, \\"c\\"",name="n0"} 1.0' in lines
    assert 'a_total{name="n\\"1"} 2.0 1700000000' in lines
    start = lines.index("# TYPE took summary")
    assert [line.split("{")[0] for line in lines[start + 1 : start + 5]] == ["took_sum", "took_count"] * 2
    assert 'plain{name="n0"} 4' in lines


def test_it_reads_back_as_prometheus_does():
    from prometheus_client.parser import text_string_to_metric_families

    families = list(text_string_to_metric_families(merge([({"name": "n0"}, ONE), ({"name": "n1"}, ONE)])))
    samples = [sample for family in families for sample in family.samples]
    assert len(samples) == 10
    assert {sample.labels["name"] for sample in samples} == {"n0", "n1"}


def test_exemplars_are_kept_for_those_who_know_them():
    from prometheus_client import CollectorRegistry, Counter, Histogram
    from prometheus_client.openmetrics.exposition import generate_latest
    from prometheus_client.openmetrics.parser import text_string_to_metric_families

    parts = []
    for name in ("n0", "n1"):
        registry = CollectorRegistry()
        histogram = Histogram("took_seconds", "How long", ["stage"], buckets=(1.0,), registry=registry)
        histogram.labels("a # {b} c").observe(0.5, {"trace_id": f"{name}ab"})
        Counter("things", "How many", registry=registry).inc()
        parts.append(({"name": name}, generate_latest(registry).decode()))
    families = {family.name: family for family in text_string_to_metric_families(merge(parts, openmetrics=True))}
    samples = families["took_seconds"].samples
    exemplars = {sample.labels["name"]: sample.exemplar.labels for sample in samples if sample.exemplar}
    assert exemplars == {"n0": {"trace_id": "n0ab"}, "n1": {"trace_id": "n1ab"}}
    assert {sample.labels["stage"] for sample in samples} == {"a # {b} c"}
    assert len(families["things"].samples) == 4  # and when it was created
    assert "trace_id" not in merge(parts)


def test_what_is_no_exposition_is_left_out():
    assert merge([({"name": "n0"}, "<html>\nnot found\n</html>")]) == "\n"
    assert names_in(ONE) == {"a_total", "took_sum", "took_count", "plain"}
