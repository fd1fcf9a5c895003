from pathlib import Path

import pytest

from actors.rollup_boost_settings import Settings, rules_of, secrets_of
from flashblocks.rollup_boost.selection import ExecutionMode, Policy
from flashblocks.wire.jwt import TokenError

A, B, C = (bytes([digit]) * 32 for digit in (1, 2, 3))


def in_file(directory: Path, name: str, secret: bytes) -> str:
    path = directory / name
    path.write_text("0x" + secret.hex() + "\n")
    return str(path)


def test_one_secret_serves_all_sides_and_each_may_have_its_own(tmp_path: Path) -> None:
    common, builder = in_file(tmp_path, "a", A), in_file(tmp_path, "b", B)
    cases = [
        (Settings(), (None, None, None)),
        (Settings(jwt_secret_path=common), (A, A, A)),
        (Settings(jwt_secret_path=common, builder_jwt_path=builder), (A, A, B)),
        (Settings(jwt_secret_path=common, l2_jwt_token=C.hex()), (A, C, A)),
        (Settings(l2_jwt_token=C.hex(), builder_jwt_path=builder), (C, C, B)),
        (Settings(builder_jwt_path=common, builder_jwt_token=B.hex()), (None, None, B)),
    ]
    for settings, expected in cases:
        found = secrets_of(settings)
        assert (found.inbound, found.l2, found.builder) == expected


def test_a_secret_that_is_none_is_refused() -> None:
    with pytest.raises(TokenError):
        secrets_of(Settings(l2_jwt_token="0x1234"))


def test_the_rules_follow_the_settings() -> None:
    rules = rules_of(
        Settings(
            execution_mode="dry-run",
            block_selection_policy="gas-used",
            commit_required=False,
            flashblock_time_ms=250,
            max_unsafe_interval_s=4.0,
        )
    )
    assert (rules.mode, rules.policy, rules.commit_required) == (ExecutionMode.DRY_RUN, Policy.GAS_USED, False)
    assert (rules.flashblock_time_s, rules.max_unsafe_interval_s) == (0.25, 4.0)
    with pytest.raises(ValueError, match="perhaps"):
        rules_of(Settings(execution_mode="perhaps"))
