"""Who may connect: concurrent connections per instance, per IP and per API key, and whose IP it is.

The rules and messages are those of the websocket-proxy operators know, without its leak: a refused connection holds
no slot of any limit.
"""

from collections import Counter
from collections.abc import Iterable
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import NamedTuple

INSTANCE_LIMIT, PER_IP_LIMIT, APP_LIMIT = "Global limit", "IP limit exceeded", "App limit exceeded"


class ApiKey(NamedTuple):
    """One key of one application; `limit` 0 means as many connections as the other limits allow."""

    app: str
    key: str
    limit: int = 0


class Ticket(NamedTuple):
    """The right to one connection; give it back to `Limits.release` exactly once."""

    ip: str
    app: str | None


class Refused(NamedTuple):
    """The HTTP status and the message of a connection that is not accepted."""

    status: int
    message: str


def parse_api_keys(entries: Iterable[str]) -> list[ApiKey]:
    """Read `app:key` and `app:key:limit`; raises ValueError for anything else, and for a key given twice."""
    keys: dict[str, ApiKey] = {}
    for entry in entries:
        parts = [part.strip() for part in entry.split(":")]
        if len(parts) not in (2, 3) or not all(parts):
            raise ValueError(f"API key {parts[0]!r}: expected app:key or app:key:limit")
        limit = 0
        if len(parts) == 3:
            if not (parts[2].isascii() and parts[2].isdigit()):
                raise ValueError(f"API key of {parts[0]!r}: the limit is not a number")
            limit = int(parts[2])
        if parts[1] in keys:
            raise ValueError(f"API key of {parts[0]!r} is already the key of {keys[parts[1]].app!r}")
        keys[parts[1]] = ApiKey(parts[0], parts[1], limit)
    return list(keys.values())


def client_ip(header: str | None, socket_ip: str) -> str:
    """Tell the client's IP: the last element of the forwarding header's first value, else that of the socket.

    Whatever is not an IP address there counts as absent. An IPv4 address in IPv6 clothes counts as IPv4.
    """
    if header:
        stated = _address(header.rpartition(",")[2].strip())
        if stated is not None:
            return stated
    return _address(socket_ip) or socket_ip


def _address(text: str) -> str | None:
    try:
        address: IPv4Address | IPv6Address = ip_address(text)
    except ValueError:
        return None
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return str(address)


class Limits:
    """Counts of the connections that live now. A limit of 0 per IP or key is no limit."""

    def __init__(self, *, instance: int, per_ip: int, api_keys: Iterable[ApiKey] = ()) -> None:
        self._instance = instance
        self._per_ip = per_ip
        self._keys = {key.key: key for key in api_keys}
        self._by_ip: Counter[str] = Counter()
        self._by_app: Counter[str] = Counter()
        self._active = 0

    @property
    def active(self) -> int:
        """How many connections live now."""
        return self._active

    @property
    def has_keys(self) -> bool:
        """True when API keys are configured."""
        return bool(self._keys)

    def by_app(self) -> dict[str, int]:
        """Living connections per application."""
        return {key.app: self._by_app[key.app] for key in self._keys.values()}

    def acquire(self, ip: str, key: str | None) -> Ticket | Refused:
        """Take a slot of every limit, or none."""
        if key is not None and key not in self._keys:
            return Refused(401, "Invalid API key")
        app = self._keys[key] if key is not None else None
        if self._active >= self._instance:
            return Refused(429, INSTANCE_LIMIT)
        if self._per_ip and self._by_ip[ip] >= self._per_ip:
            return Refused(429, PER_IP_LIMIT)
        if app is not None and app.limit and self._by_app[app.app] >= app.limit:
            return Refused(429, APP_LIMIT)
        self._active += 1
        self._by_ip[ip] += 1
        if app is not None:
            self._by_app[app.app] += 1
        return Ticket(ip, app.app if app is not None else None)

    def release(self, ticket: Ticket) -> None:
        """Give a connection's slots back."""
        self._active -= 1
        self._by_ip[ticket.ip] -= 1
        if not self._by_ip[ticket.ip]:
            del self._by_ip[ticket.ip]
        if ticket.app is not None:
            self._by_app[ticket.app] -= 1
        self.check()

    def check(self) -> None:
        """Assert what must always hold."""
        assert self._active == sum(self._by_ip.values()) >= sum(self._by_app.values())
        assert all(count > 0 for count in self._by_ip.values())
        assert all(count >= 0 for count in self._by_app.values())
