"""The port that only answers GETs, addresses as operators write them, and the proxy's metrics on their own port."""

import aiohttp
import pytest
import structlog

from actors.fanout import HttpReply
from actors.proxy_metrics import labelled
from actors.stream_server import RoutesPort, split_address
from actors.websocket_proxy import Settings, WebsocketProxy


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("127.0.0.1:8545", ("127.0.0.1", 8545)),
        (":9000", ("0.0.0.0", 9000)),
        ("[::1]:80", ("::1", 80)),
        ("localhost:0", ("localhost", 0)),
    ],
)
def test_addresses(text: str, address: tuple[str, int]) -> None:
    assert split_address(text) == address


@pytest.mark.parametrize("text", ["", "localhost", "1.2.3.4:", "1.2.3.4:x", "1.2.3.4:-1"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ValueError, match="host:port"):
        split_address(text)


async def test_a_port_for_gets_answers_its_routes_and_upgrades_nobody() -> None:
    port = RoutesPort("127.0.0.1", 0, {"/metrics": lambda: HttpReply(200, b"up 1\n", "text/plain")})
    await port.start()
    async with aiohttp.ClientSession() as session:
        async with session.get(f"http://127.0.0.1:{port.port}/metrics?name=up") as answer:
            assert (answer.status, await answer.text()) == (200, "up 1\n")
        async with session.get(f"http://127.0.0.1:{port.port}/other") as answer:
            assert answer.status == 404
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await session.ws_connect(f"http://127.0.0.1:{port.port}/ws")
    await port.close()


def test_labels_are_added_to_every_sample() -> None:
    text = b'# TYPE a counter\na 1\nb{app="x"} 2.5\n\n'
    assert labelled(text, {}) == text
    expected = b'# TYPE a counter\na{env="t\\"",zone="z"} 1\nb{env="t\\"",zone="z",app="x"} 2.5\n\n'
    assert labelled(text, {"env": 't"', "zone": "z"}) == expected


async def test_a_proxy_serves_its_metrics_where_operators_look_for_them() -> None:
    settings = Settings(
        upstream_ws=["ws://127.0.0.1:1/ws"],
        port=0,
        metrics_addr="127.0.0.1:0",
        metrics_global_labels={"env": "test"},
        metrics_host_label=True,
    )
    proxy = WebsocketProxy(settings, structlog.get_logger())
    await proxy.start()
    assert proxy.metrics_port is not None
    async with aiohttp.ClientSession() as session:
        for port in (proxy.port, proxy.metrics_port):
            async with session.get(f"http://127.0.0.1:{port}/metrics") as answer:
                text = await answer.text()
            assert 'websocket_proxy_active_connections{env="test",hostname="' in text
        async with session.get(f"http://127.0.0.1:{proxy.metrics_port}/ws") as answer:
            assert answer.status == 404
    await proxy.close()
