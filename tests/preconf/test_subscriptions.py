"""Which transactions are news: each once, whoever asks, in a table of bounded size."""

from typing import Any

import pytest

from flashblocks.execution.follow import PayloadFollower
from flashblocks.preconf import subscriptions
from flashblocks.preconf.events import FlashblockShown, HeadChanged, TransactionSent, TransactionsFirstSeen
from flashblocks.preconf.snapshot import PendingSnapshot
from flashblocks.preconf.subscriptions import FirstSeen, subscription
from flashblocks.wire.hexadecimal import data
from tests.execution.forge import Forge


def shown(forge: Forge) -> list[FlashblockShown]:
    """A deposit, then two flashblocks with a transfer each."""
    follower = PayloadFollower(forge.chain())
    events = []
    pieces = [[forge.transfer(0, 0)], [forge.transfer(1, 0)]]
    for flashblock in forge.flashblocks(forge.block.header, forge.state, pieces):
        assert follower.apply(flashblock, committed=False).status == "VALID"
        followed = follower.open(flashblock.payload_id)
        assert followed is not None
        events.append(FlashblockShown(PendingSnapshot(followed, flashblock.index)))
    return events


def test_a_transaction_is_news_once_and_a_deposit_never() -> None:
    deposit, first, second = shown(Forge())
    (sent,), (other,) = (event.snapshot.transactions[event.snapshot.first_new :] for event in (first, second))
    news = FirstSeen()
    assert news.of(deposit) is None
    assert news.of(TransactionSent(sent)) == TransactionsFirstSeen((sent,))
    assert news.of(TransactionSent(sent)) is None
    assert news.of(first) is None
    assert news.of(second) == TransactionsFirstSeen((other,))
    assert news.of(HeadChanged((), ())) is None


def test_the_table_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(subscriptions, "ANNOUNCED_TRANSACTIONS_MAX", 1)
    _, first, second = shown(Forge())
    news = FirstSeen()
    for event in (first, second):
        assert news.of(event) is not None
        assert news.of(event) is None
    assert news.of(first) is not None, "the oldest was forgotten"


def test_the_subscription_gives_the_hash_or_all_of_it() -> None:
    first = shown(Forge())[1]
    news = FirstSeen().of(first)
    assert news is not None
    (tx,) = news.transactions
    hashes, full = subscription("newPendingTransactions"), subscription("newPendingTransactions", True)
    assert hashes(news) == [data(tx.hash)]
    told: list[Any] = full(news)
    assert (told[0]["hash"], told[0]["blockHash"]) == (data(tx.hash), None)
    assert hashes(first) == full(first) == []
