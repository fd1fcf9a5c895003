"""eth_simulateV1 on real execution: calls see the calls before them, blocks the blocks before them."""

from typing import Any

import pytest

from chaos.erc20 import SUPPLY, balance_data, deployment_code, runtime_code, transfer_data
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.assembler import assemble
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.preconf.simulate import read_simulation, simulate
from flashblocks.wire.hexadecimal import WireError, data, to_bytes
from flashblocks.wire.jsonrpc import RpcError

SPEC, GENESIS, STATE = load_genesis(default_genesis())
ALICE, BOB = TEST_ACCOUNTS[0].address, TEST_ACCOUNTS[1].address
NOBODY = b"\x11" * 20
TOKEN = bytes.fromhex("5fbdb2315678afecb367f032d93f642f64180aa3")  # Alice's first contract


def run(*blocks: dict[str, Any], **options: Any) -> list[dict[str, Any]]:
    request = read_simulation({"blockStateCalls": list(blocks)} | options)
    return simulate(SPEC, GENESIS.header, STATE, request, lambda number: None)


def call(sender: bytes, to: bytes | None, value: int = 0, calldata: bytes = b"") -> dict[str, Any]:
    made = {"from": data(sender), "value": hex(value), "input": data(calldata)}
    return made if to is None else made | {"to": data(to)}


def test_calls_and_blocks_see_what_came_before() -> None:
    first, second = run(
        {"calls": [call(ALICE, None, calldata=deployment_code()), call(ALICE, TOKEN, 0, transfer_data(BOB, 5))]},
        {"calls": [call(BOB, TOKEN, 0, balance_data(BOB)), call(ALICE, TOKEN, 0, balance_data(ALICE))]},
    )
    assert [each["status"] for each in first["calls"]] == ["0x1", "0x1"]
    (log,) = first["calls"][1]["logs"]
    assert (log["address"], log["blockHash"], log["logIndex"]) == (data(TOKEN), first["hash"], "0x0")
    assert [int(each["returnData"], 16) for each in second["calls"]] == [5, SUPPLY - 5]
    assert (first["number"], second["number"], second["parentHash"]) == ("0x1", "0x2", first["hash"])
    assert int(second["timestamp"], 16) > int(first["timestamp"], 16) > GENESIS.header.timestamp
    assert first["transactions"] == list(dict.fromkeys(first["transactions"]))


def test_overrides_of_accounts_and_of_the_block() -> None:
    probe = bytes.fromhex("435f524260205260405ff3")  # NUMBER at 0, TIMESTAMP at 32
    (block,) = run(
        {
            "blockOverrides": {"time": hex(GENESIS.header.timestamp + 99), "feeRecipient": data(BOB)},
            "stateOverrides": {data(NOBODY): {"code": data(probe), "balance": "0x5"}},
            "calls": [call(ALICE, NOBODY), call(NOBODY, ALICE, 5)],
        }
    )
    out = to_bytes(block["calls"][0]["returnData"])
    assert (int.from_bytes(out[:32], "big"), int.from_bytes(out[32:], "big")) == (1, GENESIS.header.timestamp + 99)
    assert block["calls"][1]["status"] == "0x1"
    assert block["miner"] == data(BOB)


def test_numbers_left_out_are_empty_blocks() -> None:
    probe = bytes.fromhex("4360005260206000f3")  # NUMBER
    first, *between, last = run(
        {"calls": [call(ALICE, BOB, 1)]},
        {
            "blockOverrides": {"number": "0x5"},
            "stateOverrides": {data(NOBODY): {"code": data(probe)}},
            "calls": [call(ALICE, NOBODY)],
        },
    )
    assert [each["number"] for each in between] == ["0x2", "0x3", "0x4"]
    assert all(each["calls"] == each["transactions"] == [] for each in between)
    assert int(last["calls"][0]["returnData"], 16) == 5
    chain = [first, *between, last]
    assert [each["parentHash"] for each in chain[1:]] == [each["hash"] for each in chain[:-1]]
    times = [int(each["timestamp"], 16) for each in chain]
    assert times == sorted(set(times))


def test_a_failed_call_is_an_answer_not_an_error() -> None:
    code = {data(NOBODY): {"code": data(runtime_code())}, data(BOB): {"code": "0xfe"}}
    (block,) = run(
        {
            "stateOverrides": code,
            "calls": [call(ALICE, NOBODY), call(ALICE, BOB) | {"gas": "0xffff"}, call(ALICE, ALICE, 1)],
        }
    )
    reverted, failed, fine = block["calls"]
    assert (reverted["status"], reverted["error"]["code"]) == ("0x0", 3)
    assert (failed["status"], failed["error"]["code"]) == ("0x0", -32015)
    assert fine["status"] == "0x1"
    assert "error" not in fine


def test_full_transactions() -> None:
    (block,) = run({"calls": [call(ALICE, BOB, 7)]}, returnFullTransactions=True)
    (transaction,) = block["transactions"]
    assert (transaction["from"], transaction["to"], transaction["value"]) == (data(ALICE), data(BOB), "0x7")


@pytest.mark.parametrize(
    ("block", "code"),
    [
        ({"calls": [call(NOBODY, ALICE, 1)]}, -38014),
        ({"calls": [call(ALICE, BOB) | {"gas": "0x1"}]}, -38013),
        ({"calls": [call(ALICE, BOB) | {"gas": hex(10**12)}]}, -38015),
        ({"blockOverrides": {"number": "0x0"}}, -38020),
        ({"blockOverrides": {"number": "0x101"}}, -38026),
        ({"blockOverrides": {"time": "0x1"}}, -38021),
    ],
)
def test_what_cannot_be_is_refused(block: dict[str, Any], code: int) -> None:
    with pytest.raises(RpcError) as refused:
        run(block)
    assert refused.value.code == code


@pytest.mark.parametrize("request_", [None, {}, {"blockStateCalls": []}, {"blockStateCalls": {}}])
def test_requests_that_are_none(request_: Any) -> None:
    with pytest.raises(RpcError):
        read_simulation(request_)


FEES = {"maxFeePerGas": hex(10**10), "maxPriorityFeePerGas": "0x1"}


def test_with_validation_a_call_is_a_transaction_with_nonce_and_fees() -> None:
    first, second = run(
        {"calls": [call(ALICE, BOB, 7) | FEES | {"nonce": "0x0"}, call(ALICE, BOB, 7) | FEES]},
        {"calls": [call(ALICE, BOB, 7) | FEES | {"nonce": "0x2", "gas": "0x5208"}]},
        validation=True,
        returnFullTransactions=True,
    )
    assert [each["nonce"] for each in first["transactions"]] == ["0x0", "0x1"]
    assert int(first["baseFeePerGas"], 16) > 0
    assert second["calls"][0] == {"returnData": "0x", "logs": [], "gasUsed": "0x5208", "status": "0x1"}


@pytest.mark.parametrize(
    ("changed", "code"),
    [
        ({"nonce": "0x5"}, -38011),
        ({"maxFeePerGas": "0x0", "maxPriorityFeePerGas": "0x0"}, -38012),
        ({"gas": "0x1"}, -38013),
        ({"from": data(NOBODY)}, -38014),
        ({"from": data(TOKEN)}, -38024),
        ({"to": None, "input": "0x" + "00" * 49_153}, -38025),
        ({"maxPriorityFeePerGas": hex(10**11)}, -32602),
    ],
)
def test_what_validation_refuses(changed: dict[str, Any], code: int) -> None:
    deployed = {data(TOKEN): {"code": data(runtime_code()), "balance": hex(10**18)}}
    block = {"stateOverrides": deployed, "calls": [call(ALICE, BOB, 7) | {"gas": "0x100000"} | FEES | changed]}
    with pytest.raises(RpcError) as refused:
        run(block, validation=True)
    assert refused.value.code == code
    again = {"stateOverrides": {data(ALICE): {"nonce": "0x3"}}, "calls": [call(ALICE, BOB) | FEES | {"nonce": "0x2"}]}
    with pytest.raises(RpcError) as refused:
        run(again, validation=True)
    assert refused.value.code == -38010


SEND_ON = f"push0 push0 push0 push0 callvalue {data(NOBODY)} gas call"
FORWARDER = assemble(SEND_ON + " stop")
FAILING = assemble(SEND_ON + " push0 push0 revert")
ENDING = assemble(f"{data(NOBODY)} selfdestruct")
CONTRACT = b"\x22" * 20


def transfers(code: bytes) -> list[tuple[str, str, int]]:
    """Who sent what to whom when Alice sends 7 wei to a contract."""
    blocks = [{"stateOverrides": {data(CONTRACT): {"code": data(code)}}, "calls": [call(ALICE, CONTRACT, 7)]}]
    (block,) = run(*blocks, traceTransfers=True)
    (plain,) = run(*blocks)
    assert (block["logsBloom"], block["receiptsRoot"]) == (plain["logsBloom"], plain["receiptsRoot"])
    assert block["calls"][0]["gasUsed"] == plain["calls"][0]["gasUsed"]
    logs = block["calls"][0]["logs"]
    assert [log["logIndex"] for log in logs] == [hex(position) for position in range(len(logs))]
    assert {log["address"] for log in logs} <= {"0x" + "ee" * 20}
    return [("0x" + log["topics"][1][26:], "0x" + log["topics"][2][26:], int(log["data"], 16)) for log in logs]


def test_movements_of_ether_are_shown_where_they_are_asked_for() -> None:
    in_, out = (data(ALICE), data(CONTRACT), 7), (data(CONTRACT), data(NOBODY), 7)
    assert transfers(b"") == [in_]
    assert transfers(FORWARDER) == [in_, out]
    assert transfers(ENDING) == [in_, out]
    assert transfers(FAILING) == []


def test_unknown_overrides_are_refused() -> None:
    with pytest.raises(WireError, match="block overrides: difficulty"):
        run({"blockOverrides": {"difficulty": "0x1"}})
    with pytest.raises(RpcError) as refused:
        read_simulation({"blockStateCalls": [{}] * 300})
    assert refused.value.code == -38026
