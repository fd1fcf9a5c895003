"""The rpc-node's spans: a flashblock from its arrival until `pending` shows it, and its transactions."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence

from tracing import names
from tracing.sending import SendTrace
from tracing.stages import Stages

ARRIVALS_MAX = 256


class PendingTrace:
    """What one rpc-node records of the stream; `sends` knows the transactions that came through it."""

    def __init__(self, stages: Stages, sends: SendTrace) -> None:
        self._stages, self._sends = stages, sends
        self._arrived: OrderedDict[bytes, float] = OrderedDict()

    def arrived(self, digest: bytes, now: float) -> None:
        """A flashblock came; the first of several copies counts."""
        if digest not in self._arrived:
            self._arrived[digest] = now
            if len(self._arrived) > ARRIVALS_MAX:
                self._arrived.popitem(last=False)

    def shown(
        self,
        context_text: str,
        digest: bytes,
        number: int,
        index: int,
        payload_id: bytes,
        hashes: Sequence[bytes],
        now: float,
    ) -> None:
        """`pending` holds it."""
        arrived = self._arrived.pop(digest, now)
        self._stages.flashblock(
            context_text,
            names.PENDING,
            arrived,
            now,
            number=number,
            index=index,
            payload_id=payload_id,
        )
        self._sends.seen(context_text, number, index, hashes, arrived, now)

    def sealed(self, number: int, hashes: Sequence[bytes], now: float) -> None:
        """A block became the head: what no flashblock showed here is preconfirmed by it."""
        self._sends.seen("", number, None, hashes, now, now)
