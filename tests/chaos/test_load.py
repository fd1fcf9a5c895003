"""The load's own arithmetic and refusals; what it does to a cluster is in tests/system."""

from typing import Any

import pytest

from chaos.load import Load, LoadError, LoadOptions, quantiles

ENDPOINTS: dict[str, Any] = {
    "chain_id": 901,
    "accounts": [],
    "stream": [],
    "rpc": {"http": "http://127.0.0.1:1", "ws": "ws://127.0.0.1:1"},
}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([], {}),
        ([7.0], {"p50": 7.0, "p90": 7.0, "p99": 7.0, "max": 7.0}),
        ([float(n) for n in range(100, 0, -1)], {"p50": 50.0, "p90": 90.0, "p99": 99.0, "max": 100.0}),
        ([1.0, 2.0, 3.0, 1000.0], {"p50": 2.0, "p90": 1000.0, "p99": 1000.0, "max": 1000.0}),
    ],
)
def test_quantiles_are_the_nearest_rank(values: list[float], expected: dict[str, float]) -> None:
    assert quantiles(values) == expected


@pytest.mark.parametrize(
    ("endpoints", "options", "text"),
    [
        ({**ENDPOINTS, "rpc": None}, LoadOptions(tps=1), "no rpc-node"),
        (ENDPOINTS, LoadOptions(tps=0), "--tps"),
        (ENDPOINTS, LoadOptions(tps=1, mix=("transfer", "erc721")), "--mix: choose from transfer, erc20"),
        (ENDPOINTS, LoadOptions(tps=1, mix=()), "--mix"),
    ],
)
def test_load_that_cannot_be_made_is_refused(endpoints: dict[str, Any], options: LoadOptions, text: str) -> None:
    with pytest.raises(LoadError, match=text):
        Load(endpoints, options)
