import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashblocks.proxy.limits import ApiKey, Limits, Refused, Ticket, client_ip, parse_api_keys


@pytest.mark.parametrize(
    ("header", "ip"),
    [
        ("129.1.1.1,130.1.1.1", "130.1.1.1"),
        ("129.1.1.1 , 130.1.1.1 ", "130.1.1.1"),
        ("129.1.1.1", "129.1.1.1"),
        ("2001:db8::1", "2001:db8::1"),
        ("2001:DB8:0::1", "2001:db8::1"),
        ("::ffff:10.0.0.1", "10.0.0.1"),
        ("nonsense", "127.0.0.1"),
        ("400.0.0.1", "127.0.0.1"),
        ("120.0.0.1.0", "127.0.0.1"),
        ("129.1.1.1,nonsense", "127.0.0.1"),
        ("129.1.1.1,", "127.0.0.1"),
        ("", "127.0.0.1"),
        (None, "127.0.0.1"),
    ],
)
def test_the_ip_is_the_last_element_of_the_forwarding_header_or_the_sockets(header, ip):
    assert client_ip(header, "127.0.0.1") == ip


def test_api_keys_are_app_key_and_perhaps_a_limit():
    assert parse_api_keys(["shop:k1:10", "desk : k2"]) == [ApiKey("shop", "k1", 10), ApiKey("desk", "k2")]


@pytest.mark.parametrize("entry", ["k1", "shop:", ":k1", "shop:k1:many", "shop:k1:-1", "shop:k1:1:2", ""])
def test_anything_else_is_refused_without_showing_the_key(entry):
    with pytest.raises(ValueError, match="API key") as error:
        parse_api_keys([entry])
    assert "many" not in str(error.value)


def test_one_key_belongs_to_one_app():
    with pytest.raises(ValueError, match="already the key of 'shop'"):
        parse_api_keys(["shop:k", "desk:k"])


@pytest.mark.parametrize(
    ("taken", "attempt", "message"),
    [
        ([("a", None), ("b", None), ("c", None)], ("d", None), "Global limit"),
        ([("a", None)] * 2, ("a", None), "IP limit exceeded"),
        ([("a", "k")], ("b", "k"), "App limit exceeded"),
        ([("a", None)] * 2 + [("b", "k")], ("a", "k"), "Global limit"),
    ],
)
def test_each_limit_has_its_message_and_a_refusal_holds_no_slot(taken, attempt, message):
    limits = Limits(instance=3, per_ip=2, api_keys=[ApiKey("shop", "k", 1)])
    tickets = [limits.acquire(*each) for each in taken]
    for _ in range(5):
        assert limits.acquire(*attempt) == Refused(429, message)
    limits.check()
    for ticket in tickets:
        assert isinstance(ticket, Ticket)
        limits.release(ticket)
    assert limits.active == 0
    assert isinstance(limits.acquire(*attempt), Ticket)


def test_an_unknown_key_is_unauthorized_before_any_limit():
    limits = Limits(instance=0, per_ip=1, api_keys=[ApiKey("shop", "k", 1)])
    assert limits.acquire("a", "guess") == Refused(401, "Invalid API key")
    assert limits.acquire("a", "k") == Refused(429, "Global limit")


def test_zero_per_ip_and_per_key_is_no_limit():
    limits = Limits(instance=50, per_ip=0, api_keys=[ApiKey("shop", "k")])
    assert all(isinstance(limits.acquire("a", "k"), Ticket) for _ in range(50))
    assert limits.by_app() == {"shop": 50}


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from([None, "k", "l", "x"]), st.booleans()), max_size=80))
def test_no_sequence_of_connections_leaks_or_passes_a_limit(steps):
    limits = Limits(instance=5, per_ip=3, api_keys=[ApiKey("shop", "k", 2), ApiKey("desk", "l")])
    held = []
    for ip, key, leaves in steps:
        if leaves and held:
            limits.release(held.pop(0))
        else:
            got = limits.acquire(ip, key)
            held += [got] if isinstance(got, Ticket) else []
        limits.check()
        assert limits.active == len(held) <= 5
        assert all(sum(t.ip == each for t in held) <= 3 for each in "abc")
        assert limits.by_app() == {app: sum(t.app == app for t in held) for app in ("shop", "desk")}
        assert limits.by_app()["shop"] <= 2
