"""When a keeper may go on though not every host has answered: after a power cut one of them may stay dead.

Pure: what the hosts hold in, a decision out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec

from actors.host_agent import DATA_FILES
from actors.join_order import ORDER_FILE, JoinOrder, newest

ORDER_KNOWN_S = 20.0
ORDER_UNKNOWN_S = 120.0  # of a slow host's chain and ports nothing would be known: wait until it is slow no more

Held = Mapping[str, Mapping[str, bytes]]
"""By address of a host: the files it holds, by name."""


def newest_held(held: Held, marker: str) -> JoinOrder | None:
    """The newest version of the order of the run *marker* that a host holds."""
    orders = [msgspec.json.decode(files[ORDER_FILE], type=JoinOrder) for files in held.values() if ORDER_FILE in files]
    return newest(orders, marker)


def patience_s(held: Held, order: JoinOrder) -> float:
    """How long, in seconds since they were asked, the hosts that are still silent are waited for; infinite: for ever.

    For ever without genesis and secrets: made twice they would shut hosts out.  With them, any host that holds an order
    of this run is enough – should another one come later with a newer order, the keeper starts anew with that.  Where
    none holds one (the disks are older than this run) a majority of the groups has to be there, as for the chain.
    """
    names = {name for files in held.values() for name in files}
    if not names.issuperset(DATA_FILES):
        return math.inf
    if newest_held(held, order.marker) is not None:
        return ORDER_KNOWN_S
    groups = order.placement.groups
    is_majority = 2 * sum(1 for address in groups if address in held) > len(groups)
    return ORDER_UNKNOWN_S if is_majority else math.inf
