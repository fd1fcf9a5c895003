"""A tracer whose spans are kept, with the stages on it."""

from collections import defaultdict

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from prometheus_client import CollectorRegistry

from tracing.otlp_json import spans_to_json
from tracing.reading import spans_of_otlp
from tracing.stages import Stages
from tracing.tracer import Tracer


class Kept(SpanExporter):
    def __init__(self):
        self.lines = []

    def export(self, spans):
        self.lines.append(spans_to_json(spans))
        return SpanExportResult.SUCCESS


class Rig:
    """One tracer and what it recorded."""

    def __init__(self, sampled_share=1.0):
        self._kept = Kept()
        self.registry = CollectorRegistry()
        self.tracer = Tracer("test", "0", self._kept, sampled_share=sampled_share)
        self.stages = Stages(self.tracer, self.registry)

    def spans(self):
        self.tracer.flush()  # whatever else the machine does: closing waits for a second only
        self.tracer.close()
        return [span for line in self._kept.lines for span in spans_of_otlp(line)]

    def traces(self):
        found = defaultdict(list)
        for span in self.spans():
            found[span.trace_id].append(span)
        return found


def hex_id(context):
    return f"{context.trace_id:032x}"
