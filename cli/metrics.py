"""``flashblocks metrics``: every component's metrics as one text, and the targets for Prometheus' HTTP discovery."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Callable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import urlsplit

from cli.output import CommandError, note, say, say_json
from cli.running import add_name, endpoints, find

SCRAPE_S_MAX = 2.0
TEXT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text"
OPENMETRICS_TYPE = f"{OPENMETRICS}; version=1.0.0; charset=utf-8"
DOORS = ("metrics", "rpc", "engine", "http", "ws")
"""Where a component answers /metrics: its first address of these kinds."""


def configure(parser: argparse.ArgumentParser, _: list[str]) -> None:
    """Add the options."""
    add_name(parser)
    parser.add_argument("--targets", action="store_true", help="print the targets as Prometheus' HTTP discovery wants")
    parser.add_argument(
        "--serve", metavar="HOST:PORT", help="serve /metrics (all of them) and /targets there until Ctrl-C"
    )


def run(options: argparse.Namespace) -> int:
    """Print or serve."""
    found = endpoints(find(options.name))
    if options.serve:
        return _serve(options.serve, lambda: endpoints(find(options.name)))
    if options.targets:
        say_json(targets(found))
    else:
        say(asyncio.run(collect(found)).rstrip())
    return 0


def doors(found: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, str]]]:
    """(host:port, labels) of every component in ``endpoints.json``."""
    for group in found["groups"]:
        for component, entry in group["actors"].items():
            yield _door(entry), {"component": component, "name": group["name"]}
    for component, kind in (("websocket-proxy", "proxies"), ("rpc-node", "rpc_nodes"), ("ingress", "ingress")):
        for entry in found[kind]:
            yield _door(entry), {"component": component, "name": entry["name"]}


def _door(entry: Mapping[str, Any]) -> str:
    url: str = next(entry[kind] for kind in DOORS if kind in entry)
    return urlsplit(url).netloc


def targets(found: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The answer of Prometheus' HTTP service discovery (`http_sd_config`)."""
    return [{"targets": [door], "labels": {**labels, "cluster": found["name"]}} for door, labels in doors(found)]


async def collect(found: Mapping[str, Any], *, openmetrics: bool = False) -> str:
    """Every component's metrics, labelled; who does not answer is left out and counted in `flashblocks_scrape_up`.

    As OpenMetrics they have trace ids as exemplars.
    """
    import aiohttp

    from tracing.exposition import merge

    async def scrape(session: aiohttp.ClientSession, door: str) -> str | None:
        try:
            accept = {"Accept": OPENMETRICS_TYPE} if openmetrics else {}
            async with session.get(f"http://{door}/metrics", headers=accept) as response:
                text: str = await response.text()
                return text if response.status == 200 else None
        except (TimeoutError, aiohttp.ClientError, OSError):
            return None

    all_doors = list(doors(found))
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=SCRAPE_S_MAX)) as session:
        texts = await asyncio.gather(*(scrape(session, door) for door, _ in all_doors))
    parts = []
    for (_, labels), text in zip(all_doors, texts, strict=True):
        parts.append((labels, f"flashblocks_scrape_up {int(text is not None)}\n{text or ''}"))
    return merge(parts, openmetrics=openmetrics)


def _serve(address: str, find_endpoints: Callable[[], Mapping[str, Any]]) -> int:
    import orjson

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            """Answer a scrape or a discovery."""
            if self.path == "/metrics":
                openmetrics = OPENMETRICS in self.headers.get("Accept", "")
                text = asyncio.run(collect(find_endpoints(), openmetrics=openmetrics))
                self._answer(200, OPENMETRICS_TYPE if openmetrics else TEXT_TYPE, text.encode())
            elif self.path == "/targets":
                self._answer(200, "application/json", orjson.dumps(targets(find_endpoints())))
            else:
                self._answer(404, "text/plain", b"/metrics or /targets\n")

        def _answer(self, status: int, content_type: str, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            """Say nothing of each request."""

    host, _, port = address.rpartition(":")
    try:
        server = ThreadingHTTPServer((host or "127.0.0.1", int(port)), Handler)
    except (OSError, ValueError) as error:
        raise CommandError(f"--serve {address}: {error}") from None
    note(f"http://{server.server_address[0]!s}:{server.server_address[1]}/metrics and /targets; Ctrl-C ends it")
    with server:
        server.serve_forever()
    return 0
