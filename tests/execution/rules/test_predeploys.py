"""The genesis contracts do what their OP originals do, as far as the protocol and its clients look."""

from typing import Any

import pytest

from flashblocks.execution import call, execute_block
from flashblocks.execution.assembler import assemble, selector
from flashblocks.execution.fees import L1_BLOCK, MESSAGE_PASSER
from flashblocks.execution.keccak import keccak256
from flashblocks.execution.predeploys import L1_BLOCK_GETTERS, MESSAGE_PASSED_TOPIC


def word(value: int | bytes) -> bytes:
    return value.to_bytes(32, "big") if isinstance(value, int) else value.rjust(32, b"\0")


def read(chain: Any, state: Any, signature: str) -> int:
    result = call(chain.spec, chain.head, state, to=L1_BLOCK, data=selector(signature))
    assert result.error is None
    return int.from_bytes(result.output, "big")


@pytest.mark.parametrize("jovian_time", [None, 0])
def test_l1_block_answers_what_the_attributes_said(new_chain: Any, jovian_time: int | None) -> None:
    chain = new_chain(jovian_time=jovian_time)
    chain.l1 = {"operator_fee_scalar": 0xA1A2A3A4, "operator_fee_constant": 0xB1B2B3B4B5B6B7B8, "sequence_number": 5}
    chain.l1["da_footprint_gas_scalar"] = 0xC1C2
    state = chain.open().seal().state
    expected = {
        "number()": 7,
        "timestamp()": chain.head.timestamp,
        "basefee()": 10**9,
        "hash()": int.from_bytes(b"\x0c" * 32, "big"),
        "sequenceNumber()": 5,
        "blobBaseFeeScalar()": 1_014_213,
        "baseFeeScalar()": 5_227,
        "batcherHash()": 0,
        "blobBaseFee()": 3,
        "operatorFeeConstant()": 0xB1B2B3B4B5B6B7B8,
        "operatorFeeScalar()": 0xA1A2A3A4,
        "daFootprintGasScalar()": 0xC1C2 if jovian_time is not None else 0,
    }
    assert {signature: read(chain, state, signature) for signature in L1_BLOCK_GETTERS} == expected
    assert read(chain, state, "DEPOSITOR_ACCOUNT()") == 0xDEADDEADDEADDEADDEADDEADDEADDEADDEAD0001
    assert call(chain.spec, chain.head, state, to=L1_BLOCK, data=b"\1\2\3\4").error == "execution reverted"


def test_selectors_are_the_published_ones() -> None:
    assert selector("setL1BlockValuesEcotone()").hex() == "440a5e20"
    assert selector("setL1BlockValuesIsthmus()").hex() == "098999be"
    assert selector("setL1BlockValuesJovian()").hex() == "3db6be2b"


def test_only_the_depositor_writes(chain: Any) -> None:
    data = selector("setL1BlockValuesIsthmus()") + bytes(172)
    result = call(chain.spec, chain.head, chain.state, to=L1_BLOCK, data=data)
    assert result.revert_data == bytes.fromhex("3cc50b45")


@pytest.mark.parametrize("data", [b"", b"\xaa" * 32, b"\xbb" * 33, b"\xcc" * 100])
def test_a_withdrawal_is_recorded_and_the_header_commits_to_it(chain: Any, wallets: list[bytes], data: bytes) -> None:
    target = b"\x31" * 20
    arguments = word(target) + word(200_000) + word(0x60) + word(len(data)) + data + bytes(-len(data) % 32)
    raw = chain.send(
        1,
        MESSAGE_PASSER,
        value=10**15,
        data=selector("initiateWithdrawal(address,uint256,bytes)") + arguments,
        gas_limit=200_000,
    )
    block = chain.open()
    empty = block.seal().header.withdrawals_root
    receipt = block.append(raw)
    assert receipt.status == 1
    padded = data + bytes(-len(data) % 32)
    nonce = 1 << 240
    message = (nonce, wallets[1], target, 10**15, 200_000, 0xC0, len(data))
    hashed = keccak256(b"".join(word(part) for part in message) + padded)
    (log,) = receipt.logs
    assert log.topics == (MESSAGE_PASSED_TOPIC, word(nonce), word(wallets[1]), word(target))
    assert log.data == word(10**15) + word(200_000) + word(0x80) + hashed + word(len(data)) + padded
    sealed = block.seal()
    assert sealed.state.storage(MESSAGE_PASSER, int.from_bytes(keccak256(hashed + word(0)), "big")) == 1
    assert sealed.state.storage(MESSAGE_PASSER, 1) == 1
    assert sealed.header.withdrawals_root == sealed.state.storage_root(MESSAGE_PASSER) != empty
    execute_block(chain.spec, chain.head, chain.state, sealed.block)
    probe = selector("sentMessages(bytes32)") + hashed
    assert call(chain.spec, chain.head, sealed.state, to=MESSAGE_PASSER, data=probe).output == word(1)
    probe = selector("messageNonce()")
    assert call(chain.spec, chain.head, sealed.state, to=MESSAGE_PASSER, data=probe).output == word(nonce + 1)


def test_plain_ether_is_a_withdrawal_to_its_sender(chain: Any, wallets: list[bytes]) -> None:
    receipt = chain.open().append(chain.send(1, MESSAGE_PASSER, value=5, gas_limit=120_000))
    assert receipt.status == 1
    assert receipt.logs[0].topics[2:] == (word(wallets[1]), word(wallets[1]))


def test_truncated_withdrawal_data_reverts(chain: Any) -> None:
    arguments = word(b"\x31" * 20) + word(1) + word(0x60) + word(33) + bytes(32)
    data = selector("initiateWithdrawal(address,uint256,bytes)") + arguments
    assert chain.open().append(chain.send(1, MESSAGE_PASSER, data=data, gas_limit=200_000)).status == 0


def test_assembler_refuses_what_it_does_not_know() -> None:
    with pytest.raises(ValueError, match="unknown label"):
        assemble("@nowhere jump")
    with pytest.raises(ValueError, match="invalid literal"):
        assemble("frobnicate")
    with pytest.raises(ValueError, match="cannot push"):
        assemble("0x" + "00" * 33)
