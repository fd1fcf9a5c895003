"""What the ingress knows of senders' accounts: asked once from a client, then kept current by the stream itself."""

from collections import OrderedDict

from flashblocks.ingress.admission import AccountFacts

ACCOUNTS_MAX = 50_000
FRESH_S_MAX = 10.0  # ask a client again after this long, whatever the stream said


class Accounts:
    """Nonce and balance of the accounts seen lately. Flashblocks correct them; a client's answer replaces them."""

    def __init__(self, accounts_max: int = ACCOUNTS_MAX, fresh_s_max: float = FRESH_S_MAX) -> None:
        self._accounts_max, self._fresh_s_max = accounts_max, fresh_s_max
        self._known: OrderedDict[bytes, tuple[AccountFacts, float]] = OrderedDict()
        self._open_balances: dict[bytes, int] = {}
        self._open_number = -1

    def get(self, address: bytes, now: float) -> AccountFacts | None:
        """What is known and fresh; None means: ask a client."""
        known = self._known.get(address)
        if known is None or now - known[1] > self._fresh_s_max:
            return None
        return known[0]

    def learn(self, address: bytes, facts: AccountFacts, now: float) -> AccountFacts:
        """A client's answer about its newest block; the open block's balance, where the stream told it, is newer."""
        known = self._known.get(address)
        nonce = max(facts.nonce, known[0].nonce) if known is not None else facts.nonce
        merged = AccountFacts(nonce, self._open_balances.get(address, facts.balance))
        self._known[address] = (merged, now)
        self._known.move_to_end(address)
        if len(self._known) > self._accounts_max:
            self._known.popitem(last=False)
        return merged

    def flashblock(self, number: int, balances: dict[bytes, int]) -> None:
        """A flashblock of block `number`: the balances of every account the block touched so far."""
        if number < self._open_number:
            return
        if number != self._open_number:
            self._open_number, self._open_balances = number, {}
        self._open_balances.update(balances)
        for address, balance in balances.items():
            known = self._known.get(address)
            if known is not None:
                self._known[address] = (AccountFacts(known[0].nonce, balance), known[1])

    def included(self, address: bytes, nonce: int) -> None:
        """A transaction with this nonce is in a flashblock."""
        known = self._known.get(address)
        if known is not None and known[0].nonce <= nonce:
            self._known[address] = (AccountFacts(nonce + 1, known[0].balance), known[1])

    def __len__(self) -> int:
        return len(self._known)
