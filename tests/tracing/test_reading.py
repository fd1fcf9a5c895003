"""What is computed from the spans of a trace, whoever kept them."""

from tracing import names
from tracing.reading import Span, between_s, orphans, phases, shares, spans_of_jaeger


def span(name, start, end, parent="r", span_id=None):
    return Span(
        trace_id="t", span_id=span_id or name, parent_id=parent, name=name, service="s", instance="i", start=start,
        end=end, attributes={},
    )  # fmt: skip


def test_time_is_shared_out_and_the_rest_lies_between():
    spans = [
        span("whole", 0.0, 10.0, "", "r"),
        span("a", 1.0, 3.0),
        span("a", 2.0, 4.0, span_id="a2"),
        span("b", 9, 11),
    ]
    assert [(share.stage, share.seconds, share.count, share.seconds_max) for share in shares(spans)] == [
        ("a", 4.0, 2, 2.0),
        ("b", 2.0, 1, 2.0),
    ]
    assert between_s(spans) == 6.0
    assert [each.name for each in orphans([*spans, span("c", 1, 2, "gone")])] == ["c"]


def test_phases_count_what_goes_on_at_once_once():
    spans = [
        span("whole", 0.0, 10.0, "", "r"),
        span(names.POOL, 0.0, 3.0),
        span(names.INCLUDE, 3.0, 3.5),
        span(names.FAN_OUT, 5.0, 6.0),
        span(names.FAN_OUT, 5.5, 7.0, span_id="f2"),
        span(names.PRECONFIRM, 8.0, 8.5),
    ]
    assert phases(spans) == {"queue": 3.0, "build": 0.5, "fan-out": 2.5}
    assert phases([span("failover", 0.0, 1.0, "", "r")]) == {}


def test_jaegers_answer_reads_as_our_files_do():
    answer = {
        "data": [
            {
                "processes": {"p1": {"serviceName": "builder", "tags": [{"key": names.GROUP, "value": "sequencer-0"}]}},
                "spans": [
                    {
                        "traceID": "ab",
                        "spanID": "1",
                        "operationName": "block",
                        "processID": "p1",
                        "startTime": 2_000_000,
                        "duration": 500_000,
                        "references": [],
                        "tags": [{"key": "epoch", "value": 3}],
                    },
                    {
                        "traceID": "ab",
                        "spanID": "2",
                        "operationName": "flashblock judge",
                        "processID": "p1",
                        "startTime": 2_100_000,
                        "duration": 1_000,
                        "references": [{"refType": "CHILD_OF", "traceID": "ab", "spanID": "1"}],
                        "tags": [{"key": "error", "value": True}, {"key": names.OUTCOME, "value": "gap"}],
                    },
                ],
            }
        ]
    }
    whole, judge = spans_of_jaeger(answer)
    assert (whole.service, whole.instance, whole.start, whole.end) == ("builder", "sequencer-0", 2.0, 2.5)
    assert whole.attributes["epoch"] == 3
    assert (judge.parent_id, judge.error) == (whole.span_id, "gap")
