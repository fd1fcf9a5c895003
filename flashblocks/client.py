"""The stream for Python programs: `async for flashblock in stream(url)` and `await preconfirmed(url, tx_hash)`.

The one module of this floor that is not a rule: it only gives the client in `actors.stream_client` the name that users
import it by.
"""

from actors.stream_client import Preconfirmation, StreamRefused, preconfirmed, stream

__all__ = ["Preconfirmation", "StreamRefused", "preconfirmed", "stream"]
