"""Which flashblocks a filtered subscriber gets: by address and by topic, against what the stream carries today.

An address matches an account whose balance the metadata states, the emitter of a log, or the bytes of a transaction
(recipient or calldata); a topic matches a log's topics. `any` (the default) wants one of all, `all` wants each.
"""

from collections.abc import Mapping
from functools import cached_property
from typing import Literal

from flashblocks.wire.flashblock import Flashblock
from flashblocks.wire.hexadecimal import WireError, to_bytes

terms_max = 256


class BadFilter(ValueError):
    """A filter query that cannot mean anything; the text is for the client (HTTP 400)."""


class Touched:
    """What one flashblock touches, found once and asked by every filter."""

    def __init__(self, flashblock: Flashblock) -> None:
        self._flashblock = flashblock
        self._found: dict[bytes, bool] = {}

    @cached_property
    def _addresses(self) -> frozenset[bytes]:
        receipts = self._flashblock.metadata.receipts.values()
        emitters = (log.address for receipt in receipts for log in receipt.logs)
        return frozenset(self._flashblock.metadata.new_account_balances) | frozenset(emitters)

    @cached_property
    def _topics(self) -> frozenset[bytes]:
        receipts = self._flashblock.metadata.receipts.values()
        return frozenset(topic for receipt in receipts for log in receipt.logs for topic in log.topics)

    def has_address(self, address: bytes) -> bool:
        """Tell whether a 20-byte address occurs."""
        found = self._found.get(address)
        if found is None:
            transactions = self._flashblock.diff.transactions
            found = address in self._addresses or any(address in transaction for transaction in transactions)
            self._found[address] = found
        return found

    def has_topic(self, topic: bytes) -> bool:
        """Tell whether a 32-byte topic occurs."""
        return topic in self._topics


class Filter:
    """A subscriber's wish. Equal wishes are equal, so their answers can be shared."""

    __slots__ = ("addresses", "match", "topics")

    def __init__(self, addresses: tuple[bytes, ...], topics: tuple[bytes, ...], match: Literal["any", "all"]) -> None:
        self.addresses = addresses
        self.topics = topics
        self.match = match

    def passes(self, touched: Touched) -> bool:
        """Tell whether the flashblock is wanted; an empty filter wants everything."""
        if not self.addresses and not self.topics:
            return True
        wanted = any if self.match == "any" else all
        return wanted(
            [
                *(touched.has_address(address) for address in self.addresses),
                *(touched.has_topic(topic) for topic in self.topics),
            ]
        )


def parse_filter(parameters: Mapping[str, str]) -> Filter | None:
    """Read `addresses=a,b&topics=t&match=any|all`; None when nothing is filtered.

    Raises `BadFilter` where an address is not 20 bytes of hex, a topic not 32, or there are too many. As in the
    original, an unknown `match` means `any`.
    """
    addresses = _terms(parameters, "addresses", 20)
    topics = _terms(parameters, "topics", 32)
    if not addresses and not topics:
        return None
    return Filter(addresses, topics, "all" if parameters.get("match", "").lower() == "all" else "any")


def _terms(parameters: Mapping[str, str], name: str, length: int) -> tuple[bytes, ...]:
    texts = [text.strip() for text in parameters.get(name, "").split(",") if text.strip()]
    if len(texts) > terms_max:
        raise BadFilter(f"{name}: more than {terms_max}")
    try:
        return tuple(to_bytes(text, length, name) for text in texts)
    except WireError as error:
        raise BadFilter(str(error)) from None
