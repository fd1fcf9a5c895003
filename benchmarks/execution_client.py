"""What following costs an execution client: judging a flashblock, taking the block, storing it, a snapshot, reopening.

    python benchmarks/execution_client.py --accounts 100000 --transactions 40

Transfers from ten wallets to random accounts of a state of the given size. Senders are recovered beforehand, as the
client does on another thread. The ratio is that of following a block to executing it a second time.
"""

import argparse
import gc
import statistics
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flashblocks.execution import Block, Header, OpenBlock, default_genesis, execute_block, load_genesis
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.chain import Chain
from flashblocks.execution.follow import PayloadFollower, flashblock_from
from flashblocks.execution.payloads import block_of
from flashblocks.execution.recovery import ChainKeeper
from flashblocks.execution.signing import sign_transaction
from flashblocks.execution.snapshot import SnapshotMark, SnapshotWriter
from flashblocks.execution.store import ChainStore
from flashblocks.execution.transaction import Transaction, decode_transaction, encode_deposit, recover_sender
from flashblocks.wire.assembly import assemble
from flashblocks.wire.engine import PayloadAttributes
from flashblocks.wire.flashblock import Flashblock, decode_body, encode_body

PAYLOAD_ID = b"\x04" + bytes(7)
FLASHBLOCKS_PER_BLOCK = 10
FIRST_ACCOUNT = 10**6
STRIDE = 7_919


class Wallets:
    """Signs transfers from the ten test accounts in turn, to accounts spread over the state."""

    def __init__(self, accounts: int) -> None:
        self.accounts = accounts
        self.sent = 0

    def transfer(self) -> bytes:
        nonce, wallet = divmod(self.sent, len(TEST_ACCOUNTS))
        target = FIRST_ACCOUNT + self.sent * STRIDE % self.accounts
        self.sent += 1
        return sign_transaction(
            TEST_ACCOUNTS[wallet].private_key,
            chain_id=901,
            nonce=nonce,
            to=target.to_bytes(20, "big"),
            value=1,
            max_fee_per_gas=10**10,
            max_priority_fee_per_gas=10**6,
        )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--accounts", type=int, default=100_000)
    parser.add_argument("--transactions", type=int, default=40, help="per flashblock")
    parser.add_argument("--blocks", type=int, default=6)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        measure(Path(directory), options.accounts, options.transactions, options.blocks)


def measure(directory: Path, accounts: int, transactions: int, blocks: int) -> None:
    funded = [account.address for account in TEST_ACCOUNTS]
    funded += [(FIRST_ACCOUNT + number).to_bytes(20, "big") for number in range(accounts)]
    genesis = default_genesis(funded=funded)
    keeper = ChainKeeper(ChainStore(directory))
    chain = keeper.open(*load_genesis(genesis))
    follower, wallets = PayloadFollower(chain), Wallets(accounts)
    judged: list[float] = []
    taken: list[float] = []
    again: list[float] = []
    first_size = size_of(directory)
    gc.collect()
    gc.disable()
    for _ in range(blocks):
        made = build(chain, [[wallets.transfer() for _ in range(transactions)] for _ in range(FLASHBLOCKS_PER_BLOCK)])
        judged += [judge(follower, flashblock) for flashblock in made][1:]
        block = block_of(chain.spec, assemble(made))
        again.append(execute_again(chain, block))
        began = time.process_time()
        assert follower.take(block).status == "VALID"
        taken.append(time.process_time() - began)
        chain.set_head(block.hash)
        follower.forget_below(chain.head.number + 1)
    report("judge a flashblock", judged)
    report("take and store a followed block", taken)
    report("execute that block again", again)
    print(f"ratio: taking a followed block is {statistics.median(again) / statistics.median(taken):.0f}× cheaper")
    print(f"log: {(size_of(directory) - first_size) / wallets.sent:.0f} bytes/transaction")
    report_disk(keeper, chain, genesis)


def build(chain: Chain, pieces: Sequence[Sequence[bytes]]) -> list[Flashblock]:
    head = chain.head
    assert head.state is not None
    attributes = attributes_after(head.header)
    working = OpenBlock.start(chain.spec, head.header, head.state, attributes)
    made = []
    for index, piece in enumerate([attributes.transactions, *pieces]):
        before = working.transaction_count
        for raw in piece:
            working.append(raw)
        balances = working.new_account_balances()
        flashblock = flashblock_from(PAYLOAD_ID, index, working.seal(), balances, before)
        made.append(decode_body(encode_body(flashblock)))
    return made


def with_senders(raws: Sequence[bytes]) -> tuple[Transaction, ...]:
    decoded = tuple(decode_transaction(raw) for raw in raws)
    for tx in decoded:
        recover_sender(tx)
    return decoded


def judge(follower: PayloadFollower, flashblock: Flashblock) -> float:
    decoded = with_senders(flashblock.diff.transactions)
    began = time.process_time()
    assert follower.apply(flashblock, decoded=decoded).status == "VALID"
    return time.process_time() - began


def execute_again(chain: Chain, block: Block) -> float:
    assert chain.head.state is not None
    decoded = with_senders(block.transactions)
    began = time.process_time()
    execute_block(chain.spec, chain.head.header, chain.head.state, block, decoded=decoded)
    return time.process_time() - began


def report_disk(keeper: ChainKeeper, chain: Chain, genesis: dict[str, Any]) -> None:
    head, directory = chain.head, keeper.store.directory
    assert head.state is not None
    writer = SnapshotWriter(directory, SnapshotMark(head.number, head.hash, head.header.state_root), head.state)
    slices: list[float] = []
    done = False
    while not done:
        began = time.process_time()
        done = writer.step()
        slices.append(time.process_time() - began)
    report(f"snapshot, each of {len(slices)} slices", slices)
    keeper.close()
    parts = load_genesis(genesis)
    began = time.process_time()
    reopened = ChainKeeper(ChainStore(directory))
    reopened.open(*parts)
    report("reopen from the snapshot", [time.process_time() - began])
    reopened.close()


def attributes_after(parent: Header) -> PayloadAttributes:
    deposit = encode_deposit(
        source_hash=parent.hash,
        sender=bytes(20),
        to=bytes(20),
        mint=0,
        value=0,
        gas_limit=100_000,
        data=b"",
    )
    return PayloadAttributes(
        timestamp=parent.timestamp + 2,
        prev_randao=bytes(32),
        fee_recipient=bytes(20),
        parent_beacon_block_root=bytes(32),
        transactions=(deposit,),
        gas_limit=parent.gas_limit,
        eip1559_params=(250).to_bytes(4, "big") + (6).to_bytes(4, "big"),
    )


def size_of(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob("blocks-*.log"))


def report(what: str, seconds: Sequence[float]) -> None:
    print(f"{what}: p50 {statistics.median(seconds) * 1e3:.2f} ms, max {max(seconds) * 1e3:.2f} ms of processor time")


if __name__ == "__main__":
    main()
