"""The golden flashblocks of op-rbuilder's wire tests, as the public stream carries them."""

import pytest

BLOOM = "0x" + "00" * 256


def h(byte):
    return "0x" + byte * 32


FIRST = (
    '{"payload_id":"0x0a0a0a0a0a0a0a0a","index":0,"base":{"parent_beacon_block_root":"' + h("22") + '",'
    '"parent_hash":"' + h("33") + '","fee_recipient":"0x4200000000000000000000000000000000000011",'
    '"prev_randao":"' + h("44") + '","block_number":"0x64","gas_limit":"0x1c9c380","timestamp":"0x686d6600",'
    '"extra_data":"0x000102","base_fee_per_gas":"0x3b9aca00"},"diff":{"state_root":"' + h("55") + '",'
    '"receipts_root":"' + h("66") + '","logs_bloom":"' + BLOOM + '","gas_used":"0xc350","block_hash":"' + h("77") + '",'
    '"transactions":["0x7e010203"],"withdrawals":[],"withdrawals_root":"' + h("88") + '","blob_gas_used":"0x0"},'
    '"metadata":{"block_number":100,"new_account_balances":{"0x00000000000000000000000000000000000000bb":"0x2540be400"},'
    '"receipts":{"' + h("11") + '":{"type":"0x7e","status":"0x1","cumulativeGasUsed":"0xc350","logs":[],'
    '"depositNonce":"0x7","depositReceiptVersion":"0x1"}}}}'
).encode()

THIRD = (
    '{"payload_id":"0x0a0a0a0a0a0a0a0a","index":3,"diff":{"state_root":"'
    + h("aa")
    + '","receipts_root":"'
    + h("bb")
    + '",'
    '"logs_bloom":"' + BLOOM + '","gas_used":"0x11558","block_hash":"' + h("cc") + '","transactions":["0x02ff"],'
    '"withdrawals":[],"withdrawals_root":"' + h("dd") + '"},"metadata":{"block_number":100,'
    '"new_account_balances":{"0x0000000000000000000000000000000000000000":"0x0"},"receipts":{"' + h("99") + '":'
    '{"type":"0x2","status":"0x1","cumulativeGasUsed":"0x5208","logs":[{"address":'
    '"0x00000000000000000000000000000000000000aa","topics":["0x' + "00" * 31 + 'a1"],"data":"0x0102"}]}}}}'
).encode()


@pytest.fixture
def first_text():
    return FIRST


@pytest.fixture
def third_text():
    return THIRD
