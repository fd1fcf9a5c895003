from actors.warm_up import warm_up
from flashblocks.execution.chain import Chain, ChainBlock
from flashblocks.execution.genesis import default_genesis, load_genesis


def test_warming_up_leaves_the_chain_as_it_was() -> None:
    spec, block, state = load_genesis(default_genesis())
    chain = Chain(spec, ChainBlock(block.header, (), (), state))
    root = state.root
    warm_up(chain)
    assert chain.head.hash == block.hash
    assert chain.head.state is not None and chain.head.state.root == root


def test_a_head_on_which_nothing_can_be_built_is_no_reason_to_fail() -> None:
    spec, block, state = load_genesis(default_genesis(jovian_time=0))
    warm_up(Chain(spec, ChainBlock(block.header, (), (), state)))
