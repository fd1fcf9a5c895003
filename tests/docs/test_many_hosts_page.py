"""What docs/many-hosts.md says about units, ports and hosts is what the code has."""

import re
from pathlib import Path

import pytest

from actors.listening import listens
from actors.ray_host import ports
from cli.host_ray import parser
from tests.actors.test_join_order import order

PAGE = (Path(__file__).parents[2] / "docs" / "many-hosts.md").read_text()


def documented_ports(where: str) -> set[int]:
    """The ports of our own that the firewall's table names for a kind of host."""
    rows = re.findall(rf"^\| {where} \| ([\d, ]+) \|", PAGE, re.M)
    return {int(port) for row in rows for port in row.split(",")}


@pytest.mark.parametrize(("where", "address"), [("sequencer", "10.0.0.10"), ("edge", "10.0.0.21")])
def test_the_firewalls_table_names_what_listens(where: str, address: str) -> None:
    found = {each.port for each in listens(order(), order().plan()) if each.address == address}
    assert documented_ports(where) == found


def test_rays_ports_are_in_the_table() -> None:
    for each in ports():
        first, _, last = each.port.partition("-")
        inside = any(
            int(low) <= int(first) and int(last or first) <= int(high or low)
            for row in re.findall(r"^\| (?:head|all) \| ([\d, –]+) \|", PAGE, re.M)
            for low, _, high in (part.strip().partition("–") for part in row.split(","))
        )
        assert inside, each


def test_the_units_start_what_there_is() -> None:
    lines = re.findall(r"^ExecStart=\S+/flashblocks ray (.*)$", PAGE, re.M)
    worker, head = (parser().parse_args(line.split()) for line in lines)
    assert worker.foreground
    assert worker.head_address
    assert head.foreground
    assert head.head
    assert head.node_address == worker.head_address
