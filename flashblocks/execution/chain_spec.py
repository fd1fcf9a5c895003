"""Which rules hold when: the constants of one chain and the times of its forks."""

from typing import Any

import msgspec

DEFAULT_EIP1559_DENOMINATOR = 250  # Canyon
DEFAULT_EIP1559_ELASTICITY = 6


class Rules(msgspec.Struct, frozen=True):
    """The fork that holds in one block. Holocene is the oldest one supported."""

    name: str  # "holocene" | "isthmus" | "jovian"
    isthmus: bool
    jovian: bool


HOLOCENE = Rules("holocene", False, False)
ISTHMUS = Rules("isthmus", True, False)
JOVIAN = Rules("jovian", True, True)


class ChainSpec(msgspec.Struct, frozen=True, kw_only=True):
    """One chain. Fork times are seconds since 1970; None means never."""

    chain_id: int
    isthmus_time: int | None = 0
    jovian_time: int | None = None
    eip1559_denominator: int = DEFAULT_EIP1559_DENOMINATOR
    eip1559_elasticity: int = DEFAULT_EIP1559_ELASTICITY

    def is_isthmus(self, timestamp: int) -> bool:
        """Whether Isthmus holds in a block of this time."""
        return self.isthmus_time is not None and timestamp >= self.isthmus_time

    def is_jovian(self, timestamp: int) -> bool:
        """Whether Jovian holds in a block of this time."""
        return self.jovian_time is not None and timestamp >= self.jovian_time

    def rules(self, timestamp: int) -> Rules:
        """The rules of a block of this time."""
        if self.is_jovian(timestamp):
            return JOVIAN
        return ISTHMUS if self.is_isthmus(timestamp) else HOLOCENE

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
            isthmus_time=config.get("isthmusTime"),
            jovian_time=config.get("jovianTime"),
            eip1559_denominator=optimism.get("eip1559DenominatorCanyon", DEFAULT_EIP1559_DENOMINATOR),
            eip1559_elasticity=optimism.get("eip1559Elasticity", DEFAULT_EIP1559_ELASTICITY),
        )


def _number(value: int | str) -> int:
    return int(value, 0) if isinstance(value, str) else value
