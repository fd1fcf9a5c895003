"""Keccak-256 where the execution room wants it: the empty hash, and the hashed keys of the tries."""

from functools import lru_cache

from flashblocks.wire.keccak import keccak256

__all__ = ["EMPTY_HASH", "hashed_address", "hashed_slot", "keccak256"]

HASHED_KEY_CACHE_ENTRIES = 1 << 16

EMPTY_HASH = keccak256(b"")


@lru_cache(maxsize=HASHED_KEY_CACHE_ENTRIES)
def hashed_address(address: bytes) -> str:
    """The path of an account in the state trie: 64 hexadecimal digits."""
    return keccak256(address).hex()


@lru_cache(maxsize=HASHED_KEY_CACHE_ENTRIES)
def hashed_slot(slot: int) -> str:
    """The path of a storage slot in its account's storage trie: 64 hexadecimal digits."""
    return keccak256(slot.to_bytes(32, "big")).hex()
