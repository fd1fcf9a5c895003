import orjson
import pytest

from flashblocks.proxy.filters import BadFilter, Touched, parse_filter, terms_max
from flashblocks.wire.flashblock_json import decode_json

receiver, sender, emitter, nobody = (bytes([n]) * 20 for n in (0xA1, 0xB2, 0xC3, 0xD4))
topic, other_topic = b"\x01" * 32, b"\x02" * 32


def flashblock(receipt):
    zero = "0x" + "00" * 32
    diff = {name: zero for name in ("state_root", "receipts_root", "block_hash", "withdrawals_root")}
    diff |= {"logs_bloom": "0x" + "00" * 256, "gas_used": "0x1", "transactions": ["0x02ff" + receiver.hex() + "00"]}
    balances = {"0x" + sender.hex(): "0x1"}
    metadata = {"block_number": 7, "new_account_balances": balances, "receipts": {"0x" + "11" * 32: receipt}}
    return decode_json(orjson.dumps({"payload_id": "0x" + "04" * 8, "index": 1, "diff": diff, "metadata": metadata}))


log = {"address": "0x" + emitter.hex(), "topics": ["0x" + topic.hex()], "data": "0x"}
today = {"type": "0x2", "status": "0x1", "cumulativeGasUsed": "0x1", "logs": [log]}
legacy = {"Eip1559": {"status": "0x1", "cumulativeGasUsed": "0x1", "logs": [log]}}


def query(addresses=(), topics=(), match=None):
    parameters = {
        "addresses": ",".join("0x" + address.hex() for address in addresses),
        "topics": ",".join("0x" + each.hex() for each in topics),
    }
    return parameters | ({"match": match} if match else {})


@pytest.mark.parametrize("receipt", [today, legacy])
@pytest.mark.parametrize(
    ("addresses", "topics", "match", "passes"),
    [
        ([sender], [], None, True),  # an account whose balance is stated
        ([emitter], [], None, True),  # the emitter of a log
        ([receiver], [], None, True),  # only in the bytes of a transaction
        ([nobody], [], None, False),
        ([nobody, sender], [], "any", True),
        ([nobody, sender], [], "all", False),
        ([sender, emitter, receiver], [topic], "all", True),
        ([], [topic], None, True),
        ([], [other_topic], None, False),
        ([nobody], [topic], None, True),
        ([nobody], [topic], "ALL", False),
        ([nobody], [topic], "most", True),  # an unknown match means any
        ([sender], [topic, other_topic], "all", False),
    ],
)
def test_a_filter_matches_what_the_stream_carries(receipt, addresses, topics, match, passes):
    wish = parse_filter(query(addresses, topics, match))
    assert wish is not None
    assert wish.passes(Touched(flashblock(receipt))) is passes


def test_no_terms_is_no_filter():
    assert parse_filter({}) is None
    assert parse_filter({"addresses": "", "topics": " , ", "match": "all"}) is None


def test_terms_in_any_case_and_with_spaces():
    wish = parse_filter({"addresses": " 0X" + sender.hex().upper() + " ,"})
    assert wish is not None and wish.addresses == (sender,)


@pytest.mark.parametrize(
    "parameters",
    [
        {"addresses": "vitalik.eth"},
        {"addresses": "0x12"},
        {"topics": "0x" + "11" * 20},
        {"addresses": ",".join(["0x" + "11" * 20] * (terms_max + 1))},
    ],
)
def test_what_cannot_mean_anything_is_refused(parameters):
    with pytest.raises(BadFilter):
        parse_filter(parameters)
