"""``flashblocks ray``: Ray on this host of many – start it, stop it, its token, its ports.

``flashblocks ray start`` is ``ray start`` with everything this system wants of it, and it is what ``cluster.yaml`` runs
on every host.  A guard stays behind and starts Ray again when it ended unasked.
"""

from __future__ import annotations

import argparse
import os
import shlex
import signal
import socket
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from actors.ray_environment import TOKEN_PATH_DEFAULT
from actors.ray_guard import GuardFiles, GuardOrder, become, launch
from actors.ray_host import RayOptions, RayOptionsError, command, environment, gcs_address, ports, resources_of, shown
from cli.output import CommandError, note, say, say_json

STARTED_S_MAX = 150.0  # three tries of the guard on a busy machine: Ray itself gives up after 30 s
STOPPED_S_MAX = 30.0
POLL_S = 0.2
LOG_TAIL_BYTES = 3000
REDIS_PASSWORD_VARIABLE = "RAY_REDIS_PASSWORD"
OVERRIDE_VARIABLE = "RAY_OVERRIDE_RESOURCES"
ANYWHERE = "192.0.2.1"
PROBE_PORT = 9  # discard: nothing is sent, the kernel only says which of our addresses it would use


def app(arguments: Sequence[str]) -> int:
    """Run ``flashblocks ray …``."""
    options = parser().parse_args(list(arguments))
    return int(options.run(options))


def parser() -> argparse.ArgumentParser:
    """The words ``flashblocks ray`` takes."""
    made = argparse.ArgumentParser(prog="flashblocks ray", description="Ray on this host of many")
    verbs = made.add_subparsers(dest="verb", required=True, metavar="VERB")
    _start_words(verbs.add_parser("start", help="start Ray here and keep it running; does nothing where it runs"))
    stop = verbs.add_parser("stop", help="end this host's Ray, and nobody else's")
    stop.add_argument("--node-address", default=None, help="which, where this machine stands for several hosts")
    stop.set_defaults(run=_stop)
    restart = verbs.add_parser("restart", help="end this host's Ray and start it as it was, with what is installed now")
    restart.add_argument("--node-address", default=None, help="which, where this machine stands for several hosts")
    restart.set_defaults(run=_restart)
    token = verbs.add_parser("token", help="make the token of a new cluster, unless there is one")
    token.set_defaults(run=_token)
    listing = verbs.add_parser("ports", help="what Ray listens on, for the firewall")
    listing.add_argument("--json", action="store_true", help="machine-readable")
    listing.set_defaults(run=_ports)
    return made


def _start_words(start: argparse.ArgumentParser) -> None:
    start.add_argument("--head", action="store_true", help="this host is Ray's head; nothing else runs on it")
    start.add_argument("--head-address", default="", metavar="HOST[:PORT]", help="the head to join")
    start.add_argument(
        "--node-address", default=None, help="this host's address (default: the one that faces the head)"
    )
    start.add_argument(
        "--edge", default="", metavar="A,B", help="the addresses of the edge hosts; others are sequencers"
    )
    start.add_argument("--resources", default=None, metavar="JSON", help="what this host is for, instead of --edge")
    start.add_argument(
        "--gcs-storage",
        default="",
        metavar="WHERE",
        help="rocksdb:/PATH or redis://HOST:PORT, password in $RAY_REDIS_PASSWORD",
    )
    start.add_argument("--autoscaling-config", default="", help="as of ray start; ray up passes it to the head")
    start.add_argument("--temp-dir", default="", help="Ray's own directory (head only)")
    start.add_argument("--port-offset", type=int, default=0, help="added to every port of Ray")
    start.add_argument("--foreground", action="store_true", help="stay, for systemd or a container")
    start.add_argument("--restart", action="store_true", help="end the Ray of this host first")
    start.add_argument("--dry-run", action="store_true", help="print environment and command")
    start.set_defaults(run=_start)


def _start(options: argparse.Namespace) -> int:
    wanted = _ray_options(options)
    try:
        order = GuardOrder(
            command=command(wanted, _ray_program()),
            environment=environment(wanted),
            again=not wanted.head or bool(wanted.gcs_storage),
        )
    except RayOptionsError as error:
        raise CommandError(str(error), status=2) from None
    if options.dry_run:
        for name, value in order.environment.items():
            say(f"{name}={shlex.quote(value)}")
        say(shown(order.command))
        return 0
    if not token_path().is_file():
        raise CommandError(f"there is no token at {token_path()}; make one on one host: flashblocks ray token")
    files = GuardFiles(wanted.address)
    if options.restart:
        _end_guard(files)
    if options.foreground:
        return become(files, order)
    if files.guard() is not None:
        return _wait_until_running(files, wanted.address)
    return _start_guard(files, order, wanted.address)


def _start_guard(files: GuardFiles, order: GuardOrder, address: str) -> int:
    files.make_root()
    guard = launch(files, order)
    while files.guard() is None and guard.poll() is None:
        time.sleep(POLL_S)
    return _wait_until_running(files, address)


def _wait_until_running(files: GuardFiles, address: str) -> int:
    deadline = time.monotonic() + STARTED_S_MAX
    while time.monotonic() < deadline and (found := files.guard()) is not None:
        pid, is_running = found
        if is_running:
            say(f"Ray runs on {address} and is kept running (guard: pid {pid}, log: {files.log})")
            return 0
        time.sleep(POLL_S)
    tail = files.log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace") if files.log.exists() else ""
    outlook = "its guard goes on trying" if files.guard() is not None else "its guard has ended"
    raise CommandError(f"Ray does not run on {address} yet; {outlook}\n{tail}")


def _ray_options(options: argparse.Namespace) -> RayOptions:
    import json

    facing = gcs_address(options.head_address).rpartition(":")[0] if options.head_address else ""
    address = options.node_address or own_address(facing)
    if options.resources is not None:
        try:
            resources = {str(name): float(value) for name, value in json.loads(options.resources).items()}
        except (ValueError, AttributeError, TypeError):
            raise CommandError(f'--resources {options.resources}: expected JSON like {{"edge": 1}}', 2) from None
    elif options.head or os.environ.get(OVERRIDE_VARIABLE):
        resources = {}  # of a cloud's workers the launcher says itself what they are for
    else:
        resources = dict(resources_of([address], [each.strip() for each in options.edge.split(",")]))
    return RayOptions(
        address=address,
        head=options.head,
        head_address=options.head_address,
        resources=resources,
        autoscaling_config=os.path.expanduser(options.autoscaling_config),
        gcs_storage=options.gcs_storage.replace(":~/", f":{Path.home()}/"),
        redis_password=os.environ.get(REDIS_PASSWORD_VARIABLE, "") if options.head else "",
        temporary=options.temp_dir,
        port_offset=options.port_offset,
    )


def own_address(facing: str = "") -> str:
    """This host's address on the way to *facing*, or to anywhere; raises `CommandError` when there is no way."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((facing or ANYWHERE, PROBE_PORT))
        except OSError as error:
            if facing:
                raise CommandError(f"no route to {facing} ({error}); say --node-address") from None
            return _only_address()
        address: str = probe.getsockname()[0]
    return address


def _only_address() -> str:
    """The address of a host without a default route."""
    found = local_addresses(Path("/proc/net/fib_trie").read_text())
    if len(found) != 1:
        raise CommandError(f"this host has {len(found)} addresses ({', '.join(found)}); say --node-address")
    return found[0]


def local_addresses(fib_trie: str) -> list[str]:
    """This host's IPv4 addresses beyond loopback, out of the kernel's routing table."""
    found, address = [], ""
    for line in fib_trie.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif words[:3] == ["/32", "host", "LOCAL"] and not address.startswith("127."):
            found.append(address)
    return list(dict.fromkeys(found))


def token_path() -> Path:
    """Where Ray looks for its token."""
    return Path(os.environ.get("RAY_AUTH_TOKEN_PATH") or TOKEN_PATH_DEFAULT).expanduser()


def _ray_program() -> str:
    return str(Path(sys.executable).with_name("ray"))


def _stop(options: argparse.Namespace) -> int:
    address = options.node_address or own_address()
    files = GuardFiles(address)
    if files.guard() is None:
        say(f"no Ray is kept running on {address}")
        return 0
    _end_guard(files)
    say(f"Ray on {address} was ended")
    return 0


def _restart(options: argparse.Namespace) -> int:
    address = options.node_address or own_address()
    files = GuardFiles(address)
    order = files.read_order() if files.guard() is not None else None
    if order is None:
        raise CommandError(f"no Ray is kept running on {address}; start it with: flashblocks ray start")
    _end_guard(files)
    return _start_guard(files, order, address)


def _end_guard(files: GuardFiles) -> None:
    deadline = time.monotonic() + STOPPED_S_MAX
    while (found := files.guard()) is not None and time.monotonic() < deadline:
        if found[0]:
            try:
                os.kill(found[0], signal.SIGTERM)
            except ProcessLookupError:
                pass
        time.sleep(POLL_S)


def _token(options: argparse.Namespace) -> int:
    from actors.data_directory import write_secret

    path = token_path()
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    existed = path.exists()
    write_secret(path)
    if path.stat().st_mode & 0o077:
        note(f"others can read {path}; it is made private")
        path.chmod(0o600)
    say(f"{path}: {'kept' if existed else 'made'}; ray up delivers it to every host (file_mounts)")
    return 0


def _ports(options: argparse.Namespace) -> int:
    found = ports()
    if options.json:
        say_json([each._asdict() for each in found])
    else:
        for each in found:
            say(f"{each.port:<12} {each.where:<11} {each.what}")
    return 0
