"""Powers modulo numbers: OpenSSL's way gives what Python's gives, for every kind of modulus."""

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashblocks.execution import big_power
from flashblocks.execution.big_power import power

SIZES = st.sampled_from([1, 7, 8, 9, 16, 31, 32, 33, 64, 200])


@pytest.fixture(autouse=True)
def always_openssl(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(big_power, "SMALL_WORK", 0)
    if big_power.openssl() is None:
        pytest.skip("this Python's OpenSSL cannot be reached")


@given(st.data(), SIZES, SIZES, SIZES)
def test_it_is_what_python_says(data: st.DataObject, base: int, exponent: int, modulus: int) -> None:
    b, e, m = (data.draw(st.integers(0, 256**size - 1)) for size in (base, exponent, modulus))
    m = max(m, 1)
    assert power(b, e, m) == pow(b, e, m)


@given(st.integers(0, 2**300), st.integers(0, 2**90), st.integers(0, 200), st.integers(0, 2**70))
def test_moduli_with_many_twos(base: int, exponent: int, twos: int, odd: int) -> None:
    modulus = (2 * odd + 1) << twos
    assert power(base, exponent, modulus) == pow(base, exponent, modulus)


@pytest.mark.parametrize("modulus", [1, 2, 3, 4, 2**63, 2**64 - 1, 2**64, 2**64 + 1, 2**256, 2**256 - 1, 6 * 2**64])
def test_edges(modulus: int) -> None:
    chance = random.Random(modulus)
    for base in (0, 1, 2, modulus - 1, modulus, modulus + 1, chance.getrandbits(300)):
        for exponent in (0, 1, 2, 3, 63, 64, 65, chance.getrandbits(700)):
            assert power(base, exponent, modulus) == pow(base, exponent, modulus)


def test_without_openssl_python_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(big_power, "openssl", lambda: None)
    assert power(3, 10**30, 10**9 + 7) == pow(3, 10**30, 10**9 + 7)
