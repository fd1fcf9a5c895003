"""Metrics under the exact names of the components we stand for, so that their dashboards work unchanged.

prometheus-client would append ``_total`` to every counter.  The originals do not (the Rust exporter writes names as
they are and histograms as summaries with quantiles), so the samples are written here by their own names.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Iterable

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

SAMPLES_KEPT_MAX = 1024
QUANTILES = (0.0, 0.5, 0.9, 0.95, 0.99, 0.999, 1.0)

Labels = tuple[tuple[str, str], ...]


class UpstreamMetrics(Collector):
    """Counters, gauges and summaries, made when first used; ``prefix`` goes before every name."""

    def __init__(self, prefix: str) -> None:
        self._prefix = prefix
        self._values: defaultdict[str, dict[Labels, float]] = defaultdict(dict)
        self._gauges: set[str] = set()
        self._samples: defaultdict[str, dict[Labels, deque[float]]] = defaultdict(dict)
        self._sums: defaultdict[tuple[str, Labels], tuple[float, int]] = defaultdict(lambda: (0.0, 0))

    def declare(
        self, *, counters: Iterable[str] = (), gauges: Iterable[str] = (), summaries: Iterable[str] = ()
    ) -> None:
        """Show these from the start, at zero: a dashboard must not wait for the first event."""
        for name in counters:
            self._values[name].setdefault((), 0)
        for name in gauges:
            self._gauges.add(name)
            self._values[name].setdefault((), 0)
        for name in summaries:
            self._samples[name].setdefault((), deque(maxlen=SAMPLES_KEPT_MAX))

    def count(self, name: str, amount: float = 1, **labels: str) -> None:
        """Add to a counter."""
        row, key = self._values[name], tuple(sorted(labels.items()))
        row[key] = row.get(key, 0) + amount

    def set_count(self, name: str, amount: float, **labels: str) -> None:
        """Set a counter that is kept elsewhere."""
        self._values[name][tuple(sorted(labels.items()))] = amount

    def gauge(self, name: str, value: float, **labels: str) -> None:
        """Set a gauge."""
        self._gauges.add(name)
        self._values[name][tuple(sorted(labels.items()))] = value

    def observe(self, name: str, value: float, **labels: str) -> None:
        """Add a value to a summary (quantiles over the last values, sum and count over all)."""
        key = tuple(sorted(labels.items()))
        samples = self._samples[name].get(key)
        if samples is None:
            samples = self._samples[name][key] = deque(maxlen=SAMPLES_KEPT_MAX)
        samples.append(value)
        total, number = self._sums[name, key]
        self._sums[name, key] = total + value, number + 1

    def value(self, name: str, **labels: str) -> float:
        """What a counter or gauge stands at; 0 when it was never used."""
        return self._values[name].get(tuple(sorted(labels.items())), 0)

    def collect(self) -> Iterable[Metric]:
        """Write everything; called by the registry."""
        for name, row in self._values.items():
            full = self._prefix + name
            metric = Metric(full, name.replace("_", " "), "gauge" if name in self._gauges else "unknown")
            for labels, value in row.items():
                metric.add_sample(full, dict(labels), value)
            yield metric
        for name, rows in self._samples.items():
            full = self._prefix + name
            metric = Metric(full, name.replace("_", " "), "summary")
            for labels, samples in rows.items():
                ordered = sorted(samples)
                for quantile in QUANTILES if ordered else ():
                    value = ordered[min(len(ordered) - 1, int(quantile * len(ordered)))]
                    metric.add_sample(full, {**dict(labels), "quantile": f"{quantile:g}"}, value)
                total, number = self._sums[name, labels]
                metric.add_sample(f"{full}_sum", dict(labels), total)
                metric.add_sample(f"{full}_count", dict(labels), number)
            yield metric
