"""Contract code as one shared object per distinct byte string, which carries what is derived from it."""

from collections.abc import Callable
from typing import Any
from weakref import WeakValueDictionary

from flashblocks.execution.keccak import EMPTY_HASH, keccak256

DELEGATION_PREFIX = b"\xef\x01\x00"  # EIP-7702: an account whose code is this and an address runs that address's code
DELEGATION_SIZE_BYTES = 23
JUMPDEST = 0x5B
PUSH0 = 0x5F
PUSH1 = 0x60
PUSH32 = 0x7F


class Code:
    """Immutable contract code with its jump destinations and its compiled programs, made when first asked for.

    Equal code is one object (`Code.of`, `Code.deferred`), so the analysis and the compiled traces are shared by every
    account, every block and every fork, and freed with the last of them.
    """

    __slots__ = ("__weakref__", "_fetch", "_jump_destinations", "_raw", "hash", "programs")

    def __init__(self, code_hash: bytes, raw: bytes | None, fetch: Callable[[bytes], bytes] | None = None) -> None:
        self.hash = code_hash  # Keccak-256 of the code
        self.programs: Any = None  # the compiler's cache for this code
        self._raw = raw
        self._fetch = fetch
        self._jump_destinations: bytes | None = None

    @staticmethod
    def of(raw: bytes) -> "Code":
        """The one object for this byte string."""
        if not raw:
            return NO_CODE
        code_hash = keccak256(raw)
        code = _interned.get(code_hash)
        if code is None:
            code = _interned[code_hash] = Code(code_hash, raw)
        return code

    @staticmethod
    def deferred(code_hash: bytes, fetch: Callable[[bytes], bytes]) -> "Code":
        """Code of which only the hash is known; the bytes are fetched when they are first run or read."""
        if code_hash == EMPTY_HASH:
            return NO_CODE
        code = _interned.get(code_hash)
        if code is None:
            code = _interned[code_hash] = Code(code_hash, None, fetch)
        return code

    @property
    def raw(self) -> bytes:
        """The code itself."""
        if self._raw is None:
            assert self._fetch is not None
            self._raw = self._fetch(self.hash)
        return self._raw

    @property
    def delegate(self) -> bytes | None:
        """EIP-7702: the address whose code runs in place of this, if this is a delegation."""
        raw = self.raw
        return raw[3:] if len(raw) == DELEGATION_SIZE_BYTES and raw[:3] == DELEGATION_PREFIX else None

    @property
    def jump_destinations(self) -> bytes:
        """For each position whether a jump may lead there: 1 for a JUMPDEST that is not data of a PUSH, else 0."""
        if self._jump_destinations is None:
            self._jump_destinations = _find_jump_destinations(self.raw)
        return self._jump_destinations


def _find_jump_destinations(raw: bytes) -> bytes:
    # A byte per position, and not a set of positions: 24 KiB of JUMPDESTs would make a set of two megabytes.
    found = bytearray(raw.translate(_ONLY_JUMPDESTS)) + bytes(PUSH32 - PUSH0)  # room for data cut off by the end
    at, size = 0, len(raw)
    while at < size:
        op = raw[at]
        at += 1
        if op == PUSH1:  # every other push is one of these
            found[at] = 0
            at += 1
        elif PUSH1 < op <= PUSH32:
            end = at + op - PUSH0
            found[at:end] = _ZEROS[op - PUSH0]
            at = end
    return bytes(found[:size])


_ONLY_JUMPDESTS = bytes(int(op == JUMPDEST) for op in range(256))
_ZEROS = [bytes(size) for size in range(PUSH32 - PUSH0 + 1)]


_interned: "WeakValueDictionary[bytes, Code]" = WeakValueDictionary()

NO_CODE = Code(EMPTY_HASH, b"")
