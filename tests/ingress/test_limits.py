"""Token buckets: burst, refill, separate keys, a bounded table."""

from flashblocks.ingress.limits import RateLimit


def test_a_burst_then_the_rate() -> None:
    limit = RateLimit(per_second=10, burst=3)
    assert [limit.take("a", 0.0) for _ in range(4)] == [True, True, True, False]
    assert limit.take("b", 0.0)
    assert not limit.take("a", 0.09)
    assert limit.take("a", 0.2)
    assert [limit.take("a", 100.0) for _ in range(4)] == [True, True, True, False]


def test_a_batch_is_taken_whole_or_not_at_all() -> None:
    limit = RateLimit(per_second=1, burst=5)
    assert not limit.take("a", 0.0, amount=6)
    assert limit.take("a", 0.0, amount=5)


def test_zero_means_no_limit() -> None:
    assert all(RateLimit(0, 0).take("a", 0.0) for _ in range(100))


def test_the_table_has_a_bound() -> None:
    limit = RateLimit(1, 1, keys_max=10)
    for number in range(100):
        limit.take(str(number), 0.0)
    assert len(limit) == 10
