"""What a cluster keeps on disk beyond one run: the genesis, the secrets, the logs, each component's own directory."""

from __future__ import annotations

import os
import secrets
from pathlib import Path
from typing import Any

import orjson

from actors.plan import GENESIS_FILE, JWT_FILE, LOG_DIRECTORY, RAFT_PASSWORD_FILE, ClusterOptions

CHAIN_FILE = "chain.json"
SECRET_BYTES = 32
PRIVATE_MODE = 0o600


class ChainMismatch(Exception):
    """The data directory holds another chain than the options ask for."""


def prepare(data_dir: Path, options: ClusterOptions, now: int) -> dict[str, Any]:
    """Fill *data_dir* where it is empty; returns ``{chain_id, genesis_hash, block_time_s}`` of the chain in it.

    The genesis is the one that lies there; without one it is made at the first start, with the time *now* (whole
    seconds). It stays as it is afterwards.
    Raises `ChainMismatch` when the directory holds a chain of another id or block time.
    """
    (data_dir / LOG_DIRECTORY).mkdir(parents=True, exist_ok=True)
    write_secret(data_dir / JWT_FILE)
    write_secret(data_dir / RAFT_PASSWORD_FILE)
    path = data_dir / CHAIN_FILE
    if path.exists():
        chain: dict[str, Any] = orjson.loads(path.read_bytes())
    else:
        chain = _make_chain(data_dir, options, now)
        write_atomically(path, orjson.dumps(chain, option=orjson.OPT_INDENT_2))
    wanted = {"chain_id": options.chain_id, "block_time_s": options.block_time_s}
    for key, value in wanted.items():
        if chain[key] != value:
            raise ChainMismatch(f"{data_dir} holds a chain with {key} {chain[key]}, not {value}")
    return chain


def _make_chain(data_dir: Path, options: ClusterOptions, now: int) -> dict[str, Any]:
    from flashblocks.execution import default_genesis, load_genesis

    path = data_dir / GENESIS_FILE
    if path.exists():  # the operator's own, with forks to come, say
        genesis = orjson.loads(path.read_bytes())
    else:
        genesis = default_genesis(chain_id=options.chain_id, timestamp=now)
        write_atomically(path, orjson.dumps(genesis, option=orjson.OPT_INDENT_2))
    spec, block, _ = load_genesis(genesis)
    return {
        "chain_id": spec.chain_id,
        "block_time_s": options.block_time_s,
        "genesis_hash": "0x" + block.header.hash.hex(),
    }


def write_secret(path: Path) -> None:
    """A file of fresh random hex digits that only its owner can read, unless it exists."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    except FileExistsError:
        return
    with os.fdopen(descriptor, "w") as file:
        file.write(secrets.token_hex(SECRET_BYTES))


def write_atomically(path: Path, content: bytes) -> None:
    """Readers see the old file or the new one, never half of either."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_bytes(content)
    os.replace(fresh, path)


def write_private(path: Path, content: bytes) -> None:
    """Put *content* at *path* at once, never readable by anybody else."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, PRIVATE_MODE)
    with os.fdopen(descriptor, "wb") as file:
        file.write(content)
    os.replace(fresh, path)
