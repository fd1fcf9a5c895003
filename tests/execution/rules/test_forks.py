"""What real blocks contain, fork by fork, written as a fixture file and replayed on both engines."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from flashblocks.execution import ChainSpec, OpenBlock, PayloadAttributes, WorldState
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.assembler import assemble
from flashblocks.execution.chain_spec import FORK_TIMES, KNOWN_FORK_TIMES
from flashblocks.execution.code import Code
from flashblocks.execution.errors import MissingState
from flashblocks.execution.header import Header
from flashblocks.execution.keccak import hashed_slot
from flashblocks.execution.replay import load_fixture, replay_file
from flashblocks.execution.signing import sign_authorization
from flashblocks.execution.state import Account
from flashblocks.execution.trie import update
from tests.execution.rules.test_stock import FORKS, nodes_of, to_fork

STRANGER = b"\x77" * 20
PROBER, CALLER, DESTROYER, BLOBS, STORE = (bytes([0x79 + n]) * 20 for n in range(5))
SLOTS = 24
PRECOMPILES = [*range(0x01, 0x14), 0x100, 0x101]

# What each address costs to look at: shows which are warm, that is, which are precompiles in this fork.
PROBER_CODE = assemble(
    " ".join(f"gas 0x{number:040x} balance pop gas swap1 sub {32 * n} mstore" for n, number in enumerate(PRECOMPILES))
    + f" {32 * len(PRECOMPILES)} push0 log0 stop"
)
# Calls each of them with its own calldata, 200,000 gas each; logs gas, success, and the output's size and hash.
CALLER_CODE = assemble(
    "calldatasize push0 push0 calldatacopy "
    + " ".join(
        f"gas push0 push0 calldatasize push0 0x{number:040x} 200000 staticcall 4096 mstore gas swap1 sub 4128 mstore "
        "returndatasize 4160 mstore returndatasize push0 5000 returndatacopy returndatasize 5000 keccak256 4192 mstore "
        "128 4096 log0"
        for number in PRECOMPILES
    )
    + " stop"
)
# Creates a contract that destroys itself at once, then itself, which it survives (EIP-6780).
DESTROYER_CODE = assemble(
    "0x33ff push0 mstore 2 30 7 create dup1 extcodehash push0 sstore balance 1 sstore "
    f"callvalue 2 sstore 0x{STRANGER.hex()} selfdestruct"
)
BLOBS_CODE = assemble(
    "blobbasefee push0 mstore push0 blobhash 32 mstore number 1 swap1 sub blockhash 64 mstore 96 push0 log0"
)
# Empties the slot named in the calldata, or fills it where it is empty.
STORE_CODE = assemble("push0 calldataload dup1 sload iszero swap1 sstore stop")
LARGE_RUNTIME = b"\x5b" * 24_576
LARGE_INITCODE = assemble("24576 @end push0 codecopy 24576 push0 return end:")[:-1].ljust(24_576, b"\0") + LARGE_RUNTIME


def world(new_chain: Any, fork: str) -> Any:
    """A chain with the contracts above, the next block of which is one of `fork`."""
    slots = {hashed_slot(slot): 1 for slot in range(SLOTS)}
    chain = new_chain(
        {
            PROBER: Account(1, 0, Code.of(PROBER_CODE), None),
            CALLER: Account(1, 0, Code.of(CALLER_CODE), None),
            DESTROYER: Account(1, 10, Code.of(DESTROYER_CODE), None),
            BLOBS: Account(1, 0, Code.of(BLOBS_CODE), None),
            STORE: Account(1, 0, Code.of(STORE_CODE), update(None, slots)),
        }
    )
    to_fork(chain, fork)
    return chain


def inputs() -> list[bytes]:
    """Calldata that is right for some precompile, and for none."""
    word = (7).to_bytes(32, "big")
    g1 = (1).to_bytes(32, "big") + (2).to_bytes(32, "big")
    modexp = b"".join(n.to_bytes(32, "big") for n in (32, 32, 32)) + word * 3
    blake = (12).to_bytes(4, "big") + bytes(208) + b"\1"
    return [b"", word, g1 * 2, g1 + word, modexp, blake, bytes(192), bytes(384), bytes(256), b"\xff" * 160, bytes(128)]


def block_of_everything(chain: Any, fork: str) -> list[bytes]:
    """Deposits of all kinds, creations, calls, failures, delegations."""
    set_code = chain.spec.isthmus_time is not None
    wallet = TEST_ACCOUNTS[5].address
    raws = [
        chain.l1_deposit(),
        chain.deposit(STRANGER, wallet, 1, mint=10**18, value=10**17, gas=100_000),
        chain.deposit(b"\x55" * 20, wallet, 2, mint=5, value=6, gas=100_000),  # cannot pay its value
        chain.deposit(b"\x56" * 20, wallet, 3, mint=5, value=0, gas=20_000),  # below its intrinsic gas
        chain.deposit(b"\x57" * 20, None, 4, mint=0, value=0, gas=200_000, data=assemble("push0 push0 revert")),
        chain.deposit(
            b"\x58" * 20, None, 5, mint=9, value=9, gas=200_000, data=assemble("0x00 push0 mstore 1 31 return")
        ),
        chain.deposit(b"\x59" * 20, PROBER, 6, mint=0, value=0, gas=300_000),
        chain.send(1, PROBER, gas_limit=300_000),
        chain.send(1, None, data=LARGE_INITCODE, gas_limit=9_000_000),
        chain.send(1, None, data=b"\xef", gas_limit=200_000),
        chain.send(1, None, data=assemble("0xef push0 mstore8 1 push0 return"), gas_limit=200_000),
        chain.send(2, DESTROYER, value=3, gas_limit=300_000),
        chain.send(2, DESTROYER, value=0, gas_limit=300_000),
        chain.send(2, BLOBS, gas_limit=100_000),
        chain.send(2, STRANGER, data=b"\1" * 3_000, gas_limit=200_000, value=1),
        chain.send(3, (0x100).to_bytes(20, "big"), data=b"\1" * 160, gas_limit=100_000),
        chain.send(3, (0x0B).to_bytes(20, "big"), data=bytes(256), gas_limit=100_000, value=1),
        chain.send(3, b"\x99" * 20, kind=0),
        chain.send(3, STORE, kind=1, access_list=((STORE, (0, 1)),), data=bytes(32), gas_limit=100_000),
    ]
    raws += [chain.send(4, CALLER, data=data, gas_limit=6_000_000) for data in inputs()]
    for slot in (*range(SLOTS - 1), *range(0, SLOTS, 3)):  # the storage trie collapses and grows again
        raws.append(chain.send(6, STORE, data=slot.to_bytes(32, "big"), gas_limit=100_000))
    if set_code:
        delegate = sign_authorization(TEST_ACCOUNTS[7].private_key, 901, PROBER, 0)
        again = sign_authorization(TEST_ACCOUNTS[7].private_key, 0, bytes(20), 1)
        to = TEST_ACCOUNTS[7].address
        raws.append(chain.send(8, to, kind=4, authorization_list=[delegate], gas_limit=400_000))
        raws.append(chain.deposit(b"\x5a" * 20, to, 7, mint=0, value=0, gas=300_000))
        raws.append(chain.send(8, to, kind=4, authorization_list=[again, delegate], gas_limit=400_000))
    return raws


def fixture_file(path: Path, chain: Any, raws: list[bytes], attributes: PayloadAttributes, expected: bytes) -> Path:
    """A block of ours as kona's executor would have recorded it."""
    pre_holocene = chain.spec.holocene_time is None
    rollup: dict[str, Any] = {"l2_chain_id": 901, "chain_op_config": {"eip1559DenominatorCanyon": 250}}
    rollup.update({name: getattr(chain.spec, name) for name in FORK_TIMES if getattr(chain.spec, name) is not None})
    vector = {
        "chain": "test",
        "rollup_config": rollup,
        "parent_header": header_json(chain.head),
        "payload_attributes": {
            "timestamp": hex(attributes.timestamp),
            "prevRandao": "0x" + attributes.prev_randao.hex(),
            "suggestedFeeRecipient": "0x" + attributes.fee_recipient.hex(),
            "parentBeaconBlockRoot": "0x" + attributes.parent_beacon_block_root.hex(),
            "transactions": ["0x" + raw.hex() for raw in raws],
            "gasLimit": hex(attributes.gas_limit),
            "eip1559Params": None if pre_holocene else "0x" + attributes.eip1559_params.hex(),
            "minBaseFee": attributes.min_base_fee,
        },
        "witness": {key.hex(): "0x" + value.hex() for key, value in nodes_of(chain.state).items()},
        "expected_block_hash": "0x" + expected.hex(),
    }
    path.write_bytes(gzip.compress(json.dumps(vector).encode(), 1))
    return path


def header_json(header: Header) -> dict[str, Any]:
    from flashblocks.execution.rpc_shapes import header_json as shape

    found = shape(header)
    return {**found, "withdrawalsRoot": "0x" + header.withdrawals_root.hex()}


@pytest.fixture(params=list(FORKS))
def recorded(request: pytest.FixtureRequest, new_chain: Any, tmp_path: Path) -> tuple[Path, Any]:
    """A fixture file of one fork, and our own block of it."""
    chain = world(new_chain, request.param)
    raws = block_of_everything(chain, request.param)
    attributes = chain.attributes()
    block = OpenBlock.start(chain.spec, chain.head, chain.state, attributes)
    for raw in raws:
        block.append(raw)
    sealed = block.seal()
    return fixture_file(tmp_path / "block.json.gz", chain, raws, attributes, sealed.header.hash), sealed


@pytest.mark.filterwarnings("ignore:SELFDESTRUCT opcode:DeprecationWarning")  # of stock py-evm
def test_both_engines_agree_whole_and_in_pieces(recorded: tuple[Path, Any]) -> None:
    path, _ = recorded
    for engine, pieces in (("fast", 1), ("fast", 10), ("stock", 1)):
        result = replay_file(path, pieces, engine)
        assert result.hash_match, (engine, pieces)


def test_the_fork_decides_what_is_warm_and_what_is_there(new_chain: Any) -> None:
    warm = {}
    for fork in FORKS:
        chain = world(new_chain, fork)
        receipt = chain.open().append(chain.send(1, PROBER, gas_limit=300_000))
        data = receipt.logs[0].data
        costs = [int.from_bytes(data[at : at + 32], "big") for at in range(0, len(data), 32)]
        warm[fork] = {number for number, cost in zip(PRECOMPILES, costs, strict=True) if cost < 2_600}
    cancun = set(range(1, 0x0B))
    assert warm["ecotone"] == cancun
    assert warm["fjord"] == warm["granite"] == warm["holocene"] == cancun | {0x100}
    assert warm["isthmus"] == warm["jovian"] == cancun | {0x100} | set(range(0x0B, 0x12))


def test_missing_parts_of_a_witness_are_named(recorded: tuple[Path, Any]) -> None:
    path, _ = recorded
    vector = json.loads(gzip.decompress(path.read_bytes()))
    vector["witness"].pop(vector["parent_header"]["stateRoot"][2:])
    path.write_bytes(gzip.compress(json.dumps(vector).encode(), 1))
    with pytest.raises(MissingState, match="the witness has nothing under"):
        replay_file(path)
    with pytest.raises(MissingState, match="the witness has nothing under"):
        replay_file(path, engine="stock")


@pytest.mark.parametrize(
    "field", ["parent_header", "payload_attributes", "witness", "rollup_config", "expected_block_hash"]
)
def test_a_file_that_is_no_fixture_is_refused(tmp_path: Path, field: str) -> None:
    path = tmp_path / "block.json"
    vector: dict[str, Any] = {"parent_header": {}, "payload_attributes": {}, "witness": {}, "rollup_config": {}}
    vector.pop(field, None)
    path.write_text(json.dumps(vector))
    with pytest.raises(ValueError, match="not a block fixture"):
        load_fixture(path)


def test_an_empty_block_and_one_of_deposits_only(new_chain: Any, tmp_path: Path) -> None:
    for raws in ([], None):
        chain = world(new_chain, "isthmus")
        transactions = [chain.l1_deposit()] if raws is None else raws
        attributes = chain.attributes()
        block = OpenBlock.start(chain.spec, chain.head, chain.state, attributes)
        for raw in transactions:
            block.append(raw)
        expected = block.seal().header.hash
        path = fixture_file(tmp_path / "block.json.gz", chain, transactions, attributes, expected)
        for engine in ("fast", "stock"):
            assert replay_file(path, 10, engine).hash_match


def test_forks_of_op_sepolia_begin_when_they_did() -> None:
    times = dict(zip(FORK_TIMES, KNOWN_FORK_TIMES[11_155_420], strict=True))
    spec = ChainSpec.with_times(11_155_420, {"isthmus_time": times["isthmus_time"]})
    for name, begins in times.items():
        assert spec.rules(begins).name + "_time" == name
    assert spec.rules(times["fjord_time"] - 1).name == "ecotone"
    assert spec.rules(1_744_218_460).name == "holocene"  # block 26,207,960
    with pytest.raises(ValueError, match="before Ecotone"):
        spec.rules(times["ecotone_time"] - 1)


def test_times_in_the_file_win_over_those_known_of_the_chain() -> None:
    spec = ChainSpec.with_times(11_155_420, {"jovian_time": 5})
    assert spec.jovian_time == 5
    assert ChainSpec.with_times(77, {"ecotone_time": 1}).holocene_time is None


class Recording(dict[bytes, bytes]):
    """A witness that remembers what was read of it."""

    def __init__(self, nodes: dict[bytes, bytes]) -> None:
        super().__init__(nodes)
        self.read: dict[bytes, bytes] = {}

    def __getitem__(self, key: bytes) -> bytes:
        value = self.read[key] = super().__getitem__(key)
        return value


def minimal_fixture(path: Path, chain: Any, raws: list[bytes]) -> Path:
    """A fixture whose witness holds only what building the whole block reads."""
    attributes = chain.attributes()
    witness = Recording(nodes_of(chain.state))
    state = WorldState.from_witness(chain.head.state_root, witness)
    block = OpenBlock.start(chain.spec, chain.head, state, attributes)
    for raw in raws:
        block.append(raw)
    fixture_file(path, chain, raws, attributes, block.seal().header.hash)
    vector = json.loads(gzip.decompress(path.read_bytes()))
    assert len(witness.read) < len(vector["witness"])
    vector["witness"] = {key.hex(): "0x" + value.hex() for key, value in witness.read.items()}
    path.write_bytes(gzip.compress(json.dumps(vector).encode(), 1))
    return path


@pytest.mark.parametrize("fork", ["holocene", "jovian"])
def test_a_witness_of_the_whole_block_is_enough_for_its_pieces(new_chain: Any, tmp_path: Path, fork: str) -> None:
    chain = world(new_chain, fork)
    raws = block_of_everything(chain, fork)
    path = minimal_fixture(tmp_path / "block.json.gz", chain, raws)
    for pieces in (1, 3, 10, len(raws)):
        assert replay_file(path, pieces).hash_match, pieces


def test_a_root_in_between_that_needs_more_than_the_witness_is_passed_over(
    new_chain: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Slot 0 is emptied and filled again. In between the trie's other leaf moves up, which nobody has read.
    two_slots = update(None, {hashed_slot(slot): 1 for slot in range(2)})
    chain = new_chain({STORE: Account(1, 0, Code.of(STORE_CODE), two_slots)})
    to_fork(chain, "holocene")
    toggles = [chain.send(account, STORE, data=bytes(32), gas_limit=100_000) for account in (1, 2, 1, 2)]
    path = minimal_fixture(tmp_path / "block.json.gz", chain, [chain.l1_deposit(), *toggles])
    missed = []
    seal = OpenBlock.seal

    def counting(block: OpenBlock) -> Any:
        try:
            return seal(block)
        except MissingState:
            missed.append(block.transaction_count)
            raise

    monkeypatch.setattr(OpenBlock, "seal", counting)
    for pieces in (1, 2, 5):
        assert replay_file(path, pieces).hash_match, pieces
    assert missed == [2, 2, 4]
