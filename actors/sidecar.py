"""Small files that a cluster writes beside its genesis: the hash of the genesis block, the engine's JWT secret.

A conductor must not load the execution rules just to hash the genesis block, so the cluster writes the hash down.
"""

from __future__ import annotations

from pathlib import Path

import orjson

from flashblocks.wire.hexadecimal import to_bytes

CHAIN_FILE = "chain.json"


def read_genesis_hash(given: str, genesis_path: str) -> bytes:
    """The given hash, or that of `chain.json` beside the genesis file; raises ValueError naming what to set."""
    if given:
        return to_bytes(given, 32, "genesis_hash")
    path = Path(genesis_path).with_name(CHAIN_FILE)
    try:
        chain = orjson.loads(path.read_bytes())
    except (OSError, orjson.JSONDecodeError) as error:
        raise ValueError(f"--genesis-hash is not given and {path} cannot be read: {error}") from error
    return to_bytes(chain.get("genesis_hash"), 32, f"genesis_hash in {path}")


def read_chain_id(genesis_path: str) -> int:
    """The chain's id out of `chain.json` beside the genesis file, else of the genesis itself; 0 where neither says."""
    for path in (Path(genesis_path).with_name(CHAIN_FILE), Path(genesis_path)) if genesis_path else ():
        try:
            content = orjson.loads(path.read_bytes())
            return int(content["chain_id"] if path.name == CHAIN_FILE else content["config"]["chainId"])
        except (OSError, ValueError, KeyError, TypeError):
            continue
    return 0


def read_jwt_secret(path: str) -> bytes | None:
    """The 32-byte secret of a hex file, with or without 0x; None for no path; raises ValueError."""
    if not path:
        return None
    text = Path(path).read_text().strip().removeprefix("0x")
    secret = bytes.fromhex(text)
    if len(secret) != 32:
        raise ValueError(f"{path}: a JWT secret has 32 bytes, not {len(secret)}")
    return secret
