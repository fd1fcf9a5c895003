import msgspec
import pytest

from flashblocks.sequencing.references import BlockId
from flashblocks.sequencing.rollup import SystemConfig, rollup_config
from flashblocks.wire.hexadecimal import WireError

GENESIS = {
    "config": {"chainId": 901, "optimism": {"eip1559DenominatorCanyon": 50, "eip1559Elasticity": 10}},
    "gasLimit": "0x8583b00",
    "timestamp": "0x6553f100",
}
ORIGIN = BlockId(0, b"\x01" * 32)


def test_the_genesis_file_is_read() -> None:
    config = rollup_config(GENESIS, b"\x02" * 32, ORIGIN, 2)
    assert (config.l2_chain_id, config.genesis_time, config.system_config.gas_limit) == (
        901,
        1_700_000_000,
        140_000_000,
    )
    assert config.system_config.eip1559_params == bytes.fromhex("000000320000000a")
    assert not config.is_jovian(2**40)


def test_the_system_config_of_the_file_is_kept() -> None:
    genesis = GENESIS | {"systemConfig": {"operator_fee_scalar": 7, "batcher_address": "0x" + "11" * 20}}
    system = rollup_config(genesis, b"\x02" * 32, ORIGIN, 2).system_config
    assert (system.operator_fee_scalar, system.batcher_address) == (7, b"\x11" * 20)


@pytest.mark.parametrize("broken", [{}, GENESIS | {"gasLimit": "big"}, GENESIS | {"config": {}}])
def test_a_broken_file_is_refused(broken: dict) -> None:
    with pytest.raises(WireError):
        rollup_config(broken, b"\x02" * 32, ORIGIN, 2)


def test_an_unknown_system_config_field_is_refused() -> None:
    with pytest.raises(msgspec.ValidationError):
        rollup_config(GENESIS | {"systemConfig": {"gas_limits": 1}}, b"\x02" * 32, ORIGIN, 2)


def test_jovian_activates_in_one_block() -> None:
    genesis = GENESIS | {"config": {"chainId": 901, "jovianTime": 1_700_000_005}}
    config = rollup_config(genesis, b"\x02" * 32, ORIGIN, 2)
    times = range(1_700_000_002, 1_700_000_012, 2)
    assert [config.is_jovian(t) for t in times] == [False, False, True, True, True]
    assert [config.activates_jovian(t) for t in times] == [False, False, True, False, False]


def test_the_rpc_spelling_is_op_nodes() -> None:
    obj = rollup_config(GENESIS, b"\x02" * 32, ORIGIN, 2).to_json()
    assert obj["genesis"]["l2"] == {"hash": "0x" + "02" * 32, "number": 0}
    assert obj["genesis"]["l2_time"] == 1_700_000_000
    assert (obj["block_time"], obj["l2_chain_id"], obj["isthmus_time"]) == (2, 901, 0)
    assert obj["genesis"]["system_config"]["operatorFeeParams"] == "0x" + "00" * 32
    assert obj["genesis"]["system_config"]["scalar"] == "0x01" + "00" * 23 + "000c5fc5" + "00000558"
    assert "jovian_time" not in obj
    assert SystemConfig(gas_limit=1).da_footprint_gas_scalar == 400
