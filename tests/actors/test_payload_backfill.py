from typing import Any

import pytest
import structlog

from actors.payload_backfill import PayloadBackfill
from actors.rpc_server import RpcServer
from flashblocks.execution.chain_spec import ChainSpec
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.payloads import block_of, envelope_of
from flashblocks.wire.hexadecimal import data
from flashblocks.wire.jsonrpc import RpcError


def genesis_block() -> Any:
    _, block, _ = load_genesis(default_genesis(chain_id=901, timestamp=1_700_000_000))
    return block


async def fetched(answer: Any) -> Any:
    async def raw_block(number: str) -> Any:
        assert number == "0x7"
        if isinstance(answer, RpcError):
            raise answer
        return answer

    server = RpcServer("127.0.0.1", 0, {"debug_getRawBlock": raw_block}, name="el", log=structlog.get_logger())
    await server.start()
    backfill = PayloadBackfill(["http://127.0.0.1:1", server.url], structlog.get_logger())
    try:
        return await backfill.fetch(7)
    finally:
        await backfill.close()
        await server.close()


async def test_a_raw_block_becomes_the_payload_it_was() -> None:
    block = genesis_block()
    envelope = await fetched(data(block.rlp()))
    assert envelope == envelope_of(block)
    assert envelope.payload.block_hash == block.hash
    assert (
        block_of(ChainSpec.from_genesis(default_genesis(chain_id=901, timestamp=1_700_000_000)), envelope).hash
        == block.hash
    )


@pytest.mark.parametrize("answer", [None, "0x", "0xc0", "0x1234", "rubbish", RpcError(-32000, "not found")])
async def test_nothing_usable_is_no_payload(answer: Any) -> None:
    assert await fetched(answer) is None
