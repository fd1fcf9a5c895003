"""``flashblocks genesis``: what op-geth and op-reth insist on in a genesis file of an OP chain."""

import json
from typing import Any

import pytest

from cli.main import main
from flashblocks.execution.genesis import load_genesis

BLOCK_FORKS = (
    "homestead", "eip150", "eip155", "eip158", "byzantium", "constantinople", "petersburg", "istanbul", "muirGlacier",
    "berlin", "london", "arrowGlacier", "grayGlacier", "mergeNetsplit", "bedrock",
)  # fmt: skip
L1_FORK_OF = {"canyon": "shanghai", "ecotone": "cancun", "isthmus": "prague"}


@pytest.fixture
def document(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["genesis", "--chain-id", "4242", "--timestamp", "1700000000", "--jovian-time", "1700000100"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def test_every_fork_is_named_and_ethereum_s_forks_go_with_those_of_op(document: dict[str, Any]) -> None:
    config = document["config"]
    assert config["chainId"] == 4242
    assert {fork: config.get(f"{fork}Block") for fork in BLOCK_FORKS} == dict.fromkeys(BLOCK_FORKS, 0)
    for fork in ("regolith", "canyon", "ecotone", "fjord", "granite", "holocene", "isthmus"):
        assert config[f"{fork}Time"] == 0
    for fork, of_ethereum in L1_FORK_OF.items():
        assert config[f"{of_ethereum}Time"] == config[f"{fork}Time"], "op-geth: Unsupported fork, else"
    assert config["jovianTime"] == 1_700_000_100
    assert config["terminalTotalDifficulty"] == 0


def test_the_optimism_section_is_complete_and_there_are_no_blobs(document: dict[str, Any]) -> None:
    config = document["config"]
    # op-geth panics without the Canyon denominator, and refuses an OP chain that has a blob schedule.
    assert config["optimism"] == {"eip1559Elasticity": 6, "eip1559Denominator": 50, "eip1559DenominatorCanyon": 250}
    assert "blobSchedule" not in config


def test_extra_data_has_holocene_s_form_and_numbers_are_hex(document: dict[str, Any]) -> None:
    assert document["extraData"] == "0x00000000fa00000006", "version, denominator 250, elasticity 6"
    for name in ("nonce", "timestamp", "gasLimit", "difficulty", "number", "gasUsed", "baseFeePerGas"):
        assert document[name] == hex(int(document[name], 16)), name
    for address, account in document["alloc"].items():
        assert len(bytes.fromhex(address.removeprefix("0x"))) == 20
        assert account["balance"] == hex(int(account["balance"], 16))


def test_we_read_it_ourselves(document: dict[str, Any]) -> None:
    spec, block, _ = load_genesis(document)
    assert (spec.chain_id, block.header.timestamp) == (4242, 1_700_000_000)
    assert not spec.is_jovian(1_700_000_099)
    assert spec.is_jovian(1_700_000_100)
