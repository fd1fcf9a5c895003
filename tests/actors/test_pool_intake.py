"""How a pool takes what is handed over: whose word for a sender counts, and each answers for itself."""

from collections.abc import Sequence

import pytest

from actors.pool_intake import BESIDE_TRANSACTIONS_MIN, PoolIntake
from actors.rpc_server import CALLER
from flashblocks.execution.accounts import TEST_ACCOUNTS
from flashblocks.execution.genesis import default_genesis, load_genesis
from flashblocks.execution.pool import TransactionPool
from flashblocks.execution.pool_rules import PoolHead
from flashblocks.execution.transaction import Transaction, decode_transaction, recover_sender
from flashblocks.ingress.handover import Handed, Outcome
from flashblocks.wire.hexadecimal import to_bytes
from tests.actors.small_client import raw

ALICE, BOB = (account.address for account in TEST_ACCOUNTS[:2])
SPEC, GENESIS, STATE = load_genesis(default_genesis())


class Pool:
    """A pool behind an intake, and what became of everything."""

    def __init__(self, *, believes: bool = False) -> None:
        self.pool = TransactionPool(SPEC, PoolHead.of(SPEC, GENESIS.header, STATE))
        self.recovered = 0
        self.submitted: list[tuple[bytes, bool]] = []
        self._intake = PoolIntake(self.pool, self._recover, self._on_submitted, believes=believes)

    async def _recover(self, transactions: Sequence[Transaction]) -> None:
        self.recovered += len(transactions)
        for transaction in transactions:
            recover_sender(transaction)

    def _on_submitted(self, tx_hash: bytes) -> None:
        self.submitted.append((tx_hash, bool(CALLER.get().traceparent)))

    async def take(self, *handed: Handed, trusted: bool = True) -> list[Outcome]:
        answers: list[Outcome] = []
        await self._intake.take(handed, trusted, answers.extend)
        return answers


@pytest.mark.parametrize(
    ("believes", "trusted", "sender"), [(True, True, BOB), (True, False, ALICE), (False, True, ALICE)]
)
async def test_a_claimed_sender_counts_where_both_sides_agree(believes: bool, trusted: bool, sender: bytes) -> None:
    pool = Pool(believes=believes)
    assert await pool.take(Handed(1, to_bytes(raw()), BOB), trusted=trusted) == [Outcome(1)]
    assert [tx.sender for tx in pool.pool.transactions()] == [sender]


async def test_many_strangers_are_recovered_together_and_the_bad_one_answers_for_itself() -> None:
    pool = Pool()
    good = [to_bytes(raw(nonce)) for nonce in range(BESIDE_TRANSACTIONS_MIN)]
    bad = bytearray(good[0])
    bad[-32:] = b"\xff" * 32  # s beyond the curve's order
    handed = [*good[:2], bytes(bad), b"\x02rubbish", *good[2:]]
    outcomes = await pool.take(*(Handed(number, each) for number, each in enumerate(handed)))
    assert [outcome.number for outcome in outcomes] == list(range(len(handed)))
    assert [outcome.code for outcome in outcomes] == [0, 0, -32000, -32000, 0, 0]
    assert "invalid transaction v, r, s values" in outcomes[2].message
    assert len(pool.pool) == len(good)
    assert pool.recovered == len(good) + 1
    pool.pool.check()


async def test_what_is_there_already_says_so_and_is_not_recovered_again() -> None:
    pool = Pool()
    many = [Handed(number, to_bytes(raw(number))) for number in range(BESIDE_TRANSACTIONS_MIN)]
    await pool.take(*many)
    before = pool.recovered
    outcomes = await pool.take(*many)
    assert {outcome.message for outcome in outcomes} == {"already known"}
    assert pool.recovered == before


async def test_hooks_hear_of_each_and_whether_it_is_traced() -> None:
    pool = Pool()
    await pool.take(Handed(1, to_bytes(raw(0)), traced=True), Handed(2, to_bytes(raw(1)), traced=True))
    await pool.take(Handed(3, to_bytes(raw(2))))
    hashes = [decode_transaction(to_bytes(raw(nonce))).hash for nonce in range(3)]
    assert pool.submitted == list(zip(hashes, [True, True, False], strict=True))
