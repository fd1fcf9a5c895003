"""``builder_info``, as builder and rollup-boost show it: which version runs."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version

from actors.upstream_metrics import UpstreamMetrics

PACKAGE = "flashblocks"


def version_info(prefix: str = "") -> UpstreamMetrics:
    """A gauge that is always 1; its labels say what runs. A checkout has no build: those labels are empty."""
    try:
        number = version(PACKAGE)
    except PackageNotFoundError:
        number = "unknown"
    info = UpstreamMetrics(prefix)
    info.gauge("builder_info", 1, version=number, build_timestamp="", git_sha="")
    return info
