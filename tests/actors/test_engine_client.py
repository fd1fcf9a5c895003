from collections.abc import AsyncIterator
from typing import Any

import pytest
import pytest_asyncio
import structlog

from actors.engine_client import EngineClient, EngineRefused, EngineUnknown
from actors.rpc_server import RpcServer
from flashblocks.sequencing.attributes import next_attributes
from flashblocks.sequencing.origin import select_origin
from flashblocks.wire.engine import ForkchoiceState
from flashblocks.wire.hexadecimal import data
from flashblocks.wire.jsonrpc import RpcError
from tests.sequencing.chain import CONFIG, GENESIS, GENESIS_TIME, L1, envelope

ATTRIBUTES = next_attributes(CONFIG, L1, GENESIS, select_origin(CONFIG, L1, GENESIS, GENESIS_TIME))
ENVELOPE = envelope(GENESIS, ATTRIBUTES)
STATE = ForkchoiceState(GENESIS.hash, GENESIS.hash, GENESIS.hash)
SECRET = b"\x01" * 32


class Engine:
    """Answers what the test says and keeps what it was asked."""

    def __init__(self) -> None:
        self.answer: Any = None
        self.asked: list[tuple[Any, ...]] = []
        methods = ("engine_forkchoiceUpdatedV3", "engine_newPayloadV4", "engine_getPayloadV4")
        self.server = RpcServer(
            "127.0.0.1",
            0,
            {name: self._method(name) for name in methods},
            name="engine",
            log=structlog.get_logger(),
            jwt_secret=SECRET,
        )

    def _method(self, name: str) -> Any:
        async def method(*params: Any) -> Any:
            self.asked.append((name, *params))
            if isinstance(self.answer, RpcError):
                raise self.answer
            return self.answer

        return method


@pytest_asyncio.fixture
async def engine() -> AsyncIterator[Engine]:
    made = Engine()
    await made.server.start()
    yield made
    await made.server.close()


@pytest_asyncio.fixture
async def client(engine: Engine) -> AsyncIterator[EngineClient]:
    made = EngineClient(engine.server.url, SECRET)
    yield made
    await made.close()


def status(text: str, **more: Any) -> dict[str, Any]:
    return {"status": text, "latestValidHash": None, "validationError": None} | more


async def test_a_build_is_asked_for_as_the_spec_says(engine: Engine, client: EngineClient) -> None:
    engine.answer = {"payloadStatus": status("VALID"), "payloadId": "0x0401020304050607"}
    assert await client.start_build(STATE, ATTRIBUTES) == bytes.fromhex("0401020304050607")
    assert engine.asked == [("engine_forkchoiceUpdatedV3", STATE.to_json(), ATTRIBUTES.to_json())]


async def test_a_payload_goes_out_with_its_beacon_root_and_no_requests(engine: Engine, client: EngineClient) -> None:
    engine.answer = status("VALID")
    await client.new_payload(ENVELOPE)
    root = data(ENVELOPE.parent_beacon_block_root)
    assert engine.asked == [("engine_newPayloadV4", ENVELOPE.payload.to_json(), [], root, [])]


async def test_a_payload_comes_back(engine: Engine, client: EngineClient) -> None:
    engine.answer = ENVELOPE.to_json() | {"blockValue": "0x0"}
    assert await client.get_payload(b"\4" * 8) == ENVELOPE


@pytest.mark.parametrize(
    ("answer", "syncing", "text"),
    [
        (status("SYNCING"), True, "SYNCING"),
        (status("ACCEPTED"), True, "ACCEPTED"),
        (status("INVALID", validationError="blockhash mismatch"), False, "INVALID blockhash mismatch"),
        (status("PERHAPS"), False, "unknown payload status"),
        (None, False, "expected an object"),
        (RpcError(-38005, "Unsupported fork"), False, "Unsupported fork"),
    ],
)
async def test_anything_but_valid_is_a_refusal(
    engine: Engine, client: EngineClient, answer: Any, syncing: bool, text: str
) -> None:
    engine.answer = answer
    with pytest.raises(EngineRefused, match=text) as refused:
        await client.new_payload(ENVELOPE)
    assert refused.value.syncing is syncing


async def test_no_answer_is_unknown_and_not_a_refusal(engine: Engine, client: EngineClient) -> None:
    await engine.server.close()
    with pytest.raises(EngineUnknown):
        await client.set_head(STATE)


@pytest.mark.parametrize("answer", [{"payloadStatus": status("VALID"), "payloadId": None}, {}, []])
async def test_a_build_without_an_id_is_a_refusal(engine: Engine, client: EngineClient, answer: Any) -> None:
    engine.answer = answer
    with pytest.raises(EngineRefused):
        await client.start_build(STATE, ATTRIBUTES)


async def test_a_wrong_secret_is_a_refusal(engine: Engine) -> None:
    stranger = EngineClient(engine.server.url, b"\x02" * 32)
    with pytest.raises(EngineRefused):
        await stranger.set_head(STATE)
    await stranger.close()
