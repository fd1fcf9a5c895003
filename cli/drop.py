"""``flashblocks drop``: a transaction that is stuck leaves every pool, and is sent no more."""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cli.output import CommandError, say, say_json
from cli.running import add_name, endpoints, find

ANSWER_S_MAX = 25.0
HASH_CHARACTERS, ADDRESS_CHARACTERS = 66, 42
ALL = "all"


def configure(parser: argparse.ArgumentParser, _: list[str]) -> None:
    """Add the options."""
    parser.add_argument("what", help="a transaction's hash, an account (all that it sent), or: all")
    parser.add_argument("--jwt-secret", metavar="FILE", help="the cluster's secret (default: in its data directory)")
    add_name(parser)
    parser.add_argument("--json", action="store_true", help="machine-readable")


def run(options: argparse.Namespace) -> int:
    """Drop it everywhere; 1 when it waited nowhere, or somebody did not answer."""
    call = _call(options.what)
    found = endpoints(find(options.name))
    secret = _secret(options.jwt_secret or found["jwt_secret"])
    answers = asyncio.run(_ask_all(found, secret, call))
    dropped = _count(answers)
    if options.json:
        say_json({"dropped": dropped})
    else:
        say(f"dropped {dropped}" if dropped else "nothing of that waits; what a flashblock shows is not dropped")
    return 0 if dropped else 1


def _call(what: str) -> tuple[str, ...]:
    """The method and its parameters; raises CommandError."""
    if what == ALL:
        return ("admin_clearTxpool",)
    if what.startswith("0x") and len(what) == HASH_CHARACTERS:
        return "admin_dropTransaction", what
    if what.startswith("0x") and len(what) == ADDRESS_CHARACTERS:
        return "admin_dropSenderTransactions", what
    raise CommandError(f"expected a transaction's hash, an account or: {ALL}; got {what!r}")


def _secret(path: str) -> bytes:
    from flashblocks.wire.jwt import TokenError, read_secret

    try:
        return read_secret(Path(path).read_text())
    except (OSError, TokenError) as error:
        raise CommandError(f"{path}: {error}; say where the secret is with --jwt-secret") from None


async def _ask_all(found: Mapping[str, Any], secret: bytes, call: tuple[str, ...]) -> list[Any]:
    """One rpc-node after the other: each reaches every ingress and pool, and forgets what was sent through it."""
    from actors.rpc_client import RpcClient, RpcRefused, RpcUnknown

    answers, failed = [], []
    for entry in found["rpc_nodes"] or found["ingress"]:
        client = RpcClient(entry["http"], jwt_secret=secret, timeout_s=ANSWER_S_MAX)
        try:
            answers.append(await client.call(*call))
        except (RpcRefused, RpcUnknown) as error:
            failed.append(f"{entry['name']}: {error}")
        finally:
            await client.close()
    if failed:
        raise CommandError("; ".join(dict.fromkeys(failed)))
    return answers


def _count(answers: list[Any]) -> int:
    """Different transactions in answers of true or false, of hashes, or of numbers."""
    hashes = {tx_hash for answer in answers if isinstance(answer, list) for tx_hash in answer}
    return len(hashes) or max((int(answer) for answer in answers if isinstance(answer, int)), default=0)
