"""Many components' Prometheus text as one, every sample labelled with whose it is."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

SUFFIXES = ("_bucket", "_count", "_sum", "_created", "_total")
_LABELS = r'\{(?:[^"{}]|"(?:[^"\\]|\\.)*")*\}'
_NUMBERS = r" [-+0-9NIe.][-+0-9A-Za-z. ]*"
_SAMPLE = re.compile(rf"([a-zA-Z_:][a-zA-Z0-9_:]*)({_LABELS})?({_NUMBERS})( ?# {_LABELS}{_NUMBERS})?")
OPENMETRICS_END = "# EOF\n"


def merge(parts: Iterable[tuple[Mapping[str, str], str]], *, openmetrics: bool = False) -> str:
    """Join (labels, exposition) pairs: each family once, with its HELP and TYPE, its samples with the labels added.

    Lines that are no exposition are left out. Exemplars are kept for `openmetrics`, which alone knows them.
    """
    heads: dict[str, list[str]] = {}
    samples: dict[str, list[str]] = {}
    for labels, text in parts:
        added = ",".join(f'{name}="{_escaped(value)}"' for name, value in labels.items())
        for line in text.splitlines():
            if line.startswith(("# HELP ", "# TYPE ")):
                family = line.split(" ", 3)[2]
                head = heads.setdefault(family, [])
                if not any(each.startswith(line[:7]) for each in head):
                    head.append(line)
            elif (found := _SAMPLE.fullmatch(line)) is not None:
                name, own, rest, exemplar = found.groups()
                if openmetrics and exemplar is not None:
                    rest = rest.rstrip() + " " + exemplar.strip()
                inside = added if own is None or own == "{}" else f"{own[1:-1].rstrip(',')},{added}"
                samples.setdefault(_family(name, heads), []).append(f"{name}{{{inside}}}{rest}")
    lines = [line for family in samples for line in (*heads.get(family, ()), *samples[family])]
    return "\n".join(lines) + "\n" + (OPENMETRICS_END if openmetrics else "")


def names_in(text: str) -> set[str]:
    """The names of all samples in an exposition."""
    found = (_SAMPLE.fullmatch(line) for line in text.splitlines() if not line.startswith("#"))
    return {each.group(1) for each in found if each is not None}


def _family(name: str, heads: Mapping[str, object]) -> str:
    if name not in heads:
        for suffix in SUFFIXES:
            if name.endswith(suffix) and name.removesuffix(suffix) in heads:
                return name.removesuffix(suffix)
    return name


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
