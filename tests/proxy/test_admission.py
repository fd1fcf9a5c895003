import pytest

from flashblocks.proxy.admission import Door, find_door, pick_subprotocol
from flashblocks.proxy.limits import ApiKey, Limits, Refused

open_house = Limits(instance=1, per_ip=1)
with_keys = Limits(instance=1, per_ip=1, api_keys=[ApiKey("shop", "k")])
not_found = Refused(404, "not found")


@pytest.mark.parametrize(
    ("path", "limits", "public", "answer"),
    [
        ("/ws", open_house, False, Door(None, None, None, False)),
        ("/ws/", open_house, False, Door(None, None, None, False)),
        ("/ws/k", open_house, False, not_found),  # keys are there only where keys are configured
        ("/ws", with_keys, False, not_found),
        ("/ws", with_keys, True, Door(None, None, None, False)),
        ("/ws/k", with_keys, False, Door("k", None, None, False)),
        ("/ws/guess", with_keys, False, Door("guess", None, None, False)),  # the limits say 401
        ("/ws/k/filter", with_keys, False, Door("k", None, None, False)),
        ("/ws/k/other", with_keys, False, not_found),
        ("/ws/k/filter/more", with_keys, False, not_found),
        ("/", open_house, False, not_found),
        ("/wsx", open_house, False, not_found),
    ],
)
def test_which_door_a_path_is(path, limits, public, answer):
    assert find_door(path, {}, limits, public=public) == answer


def test_the_query_chooses_format_filter_and_announcements():
    parameters = {"format": "brotli", "announce": "true", "addresses": "0x" + "11" * 20}
    door = find_door("/ws", parameters, open_house, public=False)
    assert isinstance(door, Door) and door.filter is not None
    assert (door.format, door.announcements, door.filter.addresses) == ("brotli", True, (b"\x11" * 20,))


@pytest.mark.parametrize("parameters", [{"format": "frame"}, {"format": "xml"}, {"topics": "0x1"}])
def test_bad_queries_are_the_clients_fault(parameters):
    refused = find_door("/ws", parameters, open_house, public=False)
    assert isinstance(refused, Refused) and refused.status == 400


def test_the_first_subprotocol_we_speak_is_taken():
    assert pick_subprotocol(["soap", "flashblocks.json-brotli.v1", "flashblocks.frame.v1"]) == (
        "flashblocks.json-brotli.v1"
    )
    assert pick_subprotocol(["soap"]) is None
    assert pick_subprotocol([]) is None
