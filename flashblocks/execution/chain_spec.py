"""Which rules hold when: the constants of one chain and the times of its forks."""

from collections.abc import Mapping
from typing import Any

import msgspec

DEFAULT_EIP1559_DENOMINATOR = 250  # Canyon
DEFAULT_EIP1559_ELASTICITY = 6


class Rules(msgspec.Struct, frozen=True):
    """The fork that holds in one block, with all that came before it. Ecotone is the oldest one supported."""

    name: str
    fjord: bool = True
    granite: bool = True
    holocene: bool = True
    isthmus: bool = True
    jovian: bool = True


ECOTONE = Rules("ecotone", False, False, False, False, False)
FJORD = Rules("fjord", True, False, False, False, False)
GRANITE = Rules("granite", True, True, False, False, False)
HOLOCENE = Rules("holocene", True, True, True, False, False)
ISTHMUS = Rules("isthmus", True, True, True, True, False)
JOVIAN = Rules("jovian", True, True, True, True, True)
ALL_RULES = (ECOTONE, FJORD, GRANITE, HOLOCENE, ISTHMUS, JOVIAN)

FORK_TIMES = ("ecotone_time", "fjord_time", "granite_time", "holocene_time", "isthmus_time", "jovian_time")
_SEPOLIA = (1_708_534_800, 1_716_998_400, 1_723_478_400, 1_732_633_200, 1_744_905_600, 1_763_568_001)
_MAINNET = (1_710_374_401, 1_720_627_201, 1_726_070_401, 1_736_445_601, 1_746_806_401, 1_764_691_201)

# When the forks began on chains of which real blocks are replayed (superchain-registry), in the order of FORK_TIMES.
KNOWN_FORK_TIMES = {11_155_420: _SEPOLIA, 84_532: _SEPOLIA, 10: _MAINNET, 8_453: _MAINNET}


class ChainSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One chain. Fork times are seconds since 1970; None means never."""

    chain_id: int
    ecotone_time: int | None = 0
    fjord_time: int | None = 0
    granite_time: int | None = 0
    holocene_time: int | None = 0
    isthmus_time: int | None = 0
    jovian_time: int | None = None
    eip1559_denominator: int = DEFAULT_EIP1559_DENOMINATOR
    eip1559_elasticity: int = DEFAULT_EIP1559_ELASTICITY

    def is_holocene(self, timestamp: int) -> bool:
        """Whether Holocene holds in a block of this time."""
        return self.holocene_time is not None and timestamp >= self.holocene_time

    def is_isthmus(self, timestamp: int) -> bool:
        """Whether Isthmus holds in a block of this time."""
        return self.isthmus_time is not None and timestamp >= self.isthmus_time

    def is_jovian(self, timestamp: int) -> bool:
        """Whether Jovian holds in a block of this time."""
        return self.jovian_time is not None and timestamp >= self.jovian_time

    def rules(self, timestamp: int) -> Rules:
        """The rules of a block of this time; raises ValueError for a block of before Ecotone."""
        if self.is_jovian(timestamp):
            return JOVIAN
        if self.is_isthmus(timestamp):
            return ISTHMUS
        for rules, begins in (
            (HOLOCENE, self.holocene_time),
            (GRANITE, self.granite_time),
            (FJORD, self.fjord_time),
            (ECOTONE, self.ecotone_time),
        ):
            if begins is not None and timestamp >= begins:
                return rules
        raise ValueError(f"a block of before Ecotone (time {timestamp}) cannot be executed")

    @staticmethod
    def with_times(chain_id: int, times: Mapping[str, int | None], **constants: int) -> "ChainSpec":
        """A chain whose fork times are those given, else those known of it, else never (see FORK_TIMES)."""
        known = dict(zip(FORK_TIMES, KNOWN_FORK_TIMES.get(chain_id, ()), strict=False))
        chosen = {name: known.get(name) if times.get(name) is None else times[name] for name in FORK_TIMES}
        return ChainSpec(chain_id=chain_id, **chosen, **constants)  # type: ignore[arg-type]

    @staticmethod
    def from_genesis(genesis: dict[str, Any]) -> "ChainSpec":
        """Read a genesis file of op-geth or op-reth; raises ValueError for a chain older than Holocene."""
        config = genesis["config"]
        timestamp = _number(genesis.get("timestamp", 0))
        holocene = config.get("holoceneTime")
        if holocene is None or holocene > timestamp:
            raise ValueError("the genesis block must be Holocene or later")
        optimism = config.get("optimism") or {}
        return ChainSpec(
            chain_id=config["chainId"],
            holocene_time=holocene,
            isthmus_time=config.get("isthmusTime"),
            jovian_time=config.get("jovianTime"),
            eip1559_denominator=optimism.get("eip1559DenominatorCanyon", DEFAULT_EIP1559_DENOMINATOR),
            eip1559_elasticity=optimism.get("eip1559Elasticity", DEFAULT_EIP1559_ELASTICITY),
        )


def _number(value: int | str) -> int:
    return int(value, 0) if isinstance(value, str) else value
