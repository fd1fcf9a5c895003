"""The first transaction of a process costs a second: the EVM's modules are imported and its tables made then.

A client that starts building or judging must not pay that in its first block, whose answers have deadlines.
"""

from __future__ import annotations

from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.chain import Chain, ChainBlock
from flashblocks.execution.errors import ExecutionError
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.open_block import OpenBlock
from flashblocks.execution.transaction import encode_deposit
from flashblocks.wire.engine import PayloadAttributes


def warm_up(chain: Chain) -> None:
    """Execute a block on the head that nobody will ever see; takes about a second of CPU once per process."""
    head = chain.head
    assert head.state is not None
    attributes = PayloadAttributes(
        timestamp=head.header.timestamp + 1,
        prev_randao=bytes(32),
        fee_recipient=bytes(20),
        parent_beacon_block_root=bytes(32),
        gas_limit=head.header.gas_limit,
        min_base_fee=0 if chain.spec.is_jovian(head.header.timestamp + 1) else None,
    )
    deposit = encode_deposit(
        source_hash=bytes(32),
        sender=TEST_ACCOUNTS[0].address,
        to=TEST_ACCOUNTS[1].address,
        mint=0,
        value=0,
        gas_limit=100_000,
        data=b"",
    )
    try:
        block = OpenBlock.start(chain.spec, head.header, head.state, attributes)
        block.append(deposit)
        block.seal()
    except ExecutionError:
        pass  # only the modules were wanted


def warm_up_process() -> None:
    """Warm this process up on a chain made for it alone: what is forked from it afterwards is warm too."""
    spec, block, state = load_genesis(default_genesis())
    warm_up(Chain(spec, ChainBlock(block.header, (), (), state)))
