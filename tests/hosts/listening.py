"""What of a host others can reach."""

from collections.abc import Iterator

from tests.hosts.machine import Machine


def listening(machine: Machine, kind: str = "--tcp") -> Iterator[tuple[str, int]]:
    """The sockets of a host that others can reach, as (address, port); every address is written `*`."""
    for line in machine.run("ss", "--no-header", "--listening", "--numeric", kind).stdout.splitlines():
        address, _, port = line.split()[3].rpartition(":")
        address = address.strip("[]").removeprefix("::ffff:").partition("%")[0]
        if not address.startswith("127.") and address != "::1":
            yield ("*" if address in ("0.0.0.0", "::", "*") else address), int(port)
