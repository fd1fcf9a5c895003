import pytest

from flashblocks.rollup_boost.selection import ExecutionMode, Offer, Policy, Source, asks_builder, choose, streams

ENABLED, DRY_RUN, DISABLED = ExecutionMode.ENABLED, ExecutionMode.DRY_RUN, ExecutionMode.DISABLED
GOOD, BAD = Offer(100), Offer(100, valid=False)


@pytest.mark.parametrize(
    "case",
    [
        (True, ENABLED, Policy.BUILDER, GOOD, GOOD, Source.FLASHBLOCKS),
        (True, DISABLED, Policy.GAS_USED, None, Offer(10**9), Source.FLASHBLOCKS),
        (True, DRY_RUN, Policy.BUILDER, None, None, Source.FLASHBLOCKS),
        (False, ENABLED, Policy.BUILDER, GOOD, GOOD, Source.BUILDER),
        (False, ENABLED, Policy.BUILDER, None, GOOD, Source.L2),
        (False, ENABLED, Policy.BUILDER, BAD, GOOD, Source.L2),
        (False, DRY_RUN, Policy.BUILDER, GOOD, GOOD, Source.L2),
        (False, DISABLED, Policy.BUILDER, GOOD, GOOD, Source.L2),
        (False, ENABLED, Policy.BUILDER, GOOD, None, None),
        (False, DISABLED, Policy.BUILDER, None, None, None),
        (False, ENABLED, Policy.GAS_USED, Offer(99), Offer(1000), Source.L2),
        (False, ENABLED, Policy.GAS_USED, Offer(100), Offer(1000), Source.BUILDER),
        (False, ENABLED, Policy.GAS_USED, Offer(0), Offer(0), Source.BUILDER),
    ],
)
def test_choice(case: tuple[bool, ExecutionMode, Policy, Offer | None, Offer | None, Source | None]) -> None:
    *asked, expected = case
    assert choose(*asked) is expected  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("mode", "no_tx_pool", "builder_ok", "ignore_unhealthy", "expected"),
    [
        (ENABLED, False, True, False, True),
        (DRY_RUN, False, True, False, True),
        (DISABLED, False, True, False, False),
        (ENABLED, True, True, False, False),
        (ENABLED, False, False, False, True),
        (ENABLED, False, False, True, False),
    ],
)
def test_who_gets_the_attributes(
    mode: ExecutionMode, no_tx_pool: bool, builder_ok: bool, ignore_unhealthy: bool, expected: bool
) -> None:
    assert asks_builder(mode, no_tx_pool, builder_ok, ignore_unhealthy) is expected


def test_only_the_enabled_mode_streams() -> None:
    assert [streams(mode) for mode in (ENABLED, DRY_RUN, DISABLED)] == [True, False, False]
    assert [mode.gauge for mode in (ENABLED, DRY_RUN, DISABLED)] == [3, 2, 1]


@pytest.mark.parametrize(
    ("text", "mode"), [("enabled", ENABLED), ("dry-run", DRY_RUN), ("dry_run", DRY_RUN), ("Disabled", DISABLED)]
)
def test_mode_spellings(text: str, mode: ExecutionMode) -> None:
    assert ExecutionMode.parse(text) is mode


def test_an_unknown_mode_is_refused() -> None:
    with pytest.raises(ValueError):
        ExecutionMode.parse("sometimes")
