from flashblocks.builder.limiter import NO_LIMITS, Buckets, Rate, SenderLimits

ALICE, BOB = b"a", b"b"


def test_a_sender_in_debt_waits_until_the_refill_has_paid_it_back() -> None:
    buckets = Buckets(Rate(most=100, refill_per_block=10, cleanup_blocks=100))
    buckets.charge(ALICE, 100)
    assert not buckets.in_debt(ALICE), "all that was there, and not more"
    buckets.charge(ALICE, 15)
    assert buckets.in_debt(ALICE)
    assert not buckets.in_debt(BOB)
    buckets.new_block()
    assert buckets.in_debt(ALICE)
    buckets.new_block()
    assert not buckets.in_debt(ALICE)


def test_a_bucket_never_holds_more_than_it_can_and_full_ones_are_forgotten() -> None:
    buckets = Buckets(Rate(most=100, refill_per_block=60, cleanup_blocks=3))
    buckets.charge(ALICE, 10)
    buckets.charge(BOB, 1_000)
    for _ in range(3):
        buckets.new_block()
    assert len(buckets) == 1
    buckets.charge(ALICE, 100)
    assert not buckets.in_debt(ALICE)
    buckets.charge(ALICE, 1)
    assert buckets.in_debt(ALICE)


def test_both_limits_count_and_either_may_be_absent() -> None:
    limits = SenderLimits(gas=Rate(100, 10, 10), time_us=Rate(1_000, 1_000, 10))
    limits.charge(ALICE, gas=0, took_s=0.0011)
    limits.charge(BOB, gas=101, took_s=0.0)
    assert limits.refuses(ALICE)
    assert limits.refuses(BOB)
    limits.new_block()
    assert not limits.refuses(ALICE)
    assert not limits.refuses(BOB)
    NO_LIMITS.charge(ALICE, 10**12, 100.0)
    assert not NO_LIMITS.refuses(ALICE)
