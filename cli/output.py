"""What commands print and how they fail."""

from __future__ import annotations

import sys
from typing import Any


class CommandError(Exception):
    """The command cannot do what was asked; the text says why and what to do about it."""

    def __init__(self, text: str, status: int = 1) -> None:
        super().__init__(text)
        self.status = status


def say(text: str = "") -> None:
    """One line for people, at once even into a pipe."""
    print(text, flush=True)


def note(text: str) -> None:
    """One line about what is going on, beside the output proper."""
    print(text, file=sys.stderr, flush=True)


def say_json(value: Any, *, indented: bool = True) -> None:
    """A JSON value on stdout; one line unless *indented*."""
    import orjson

    option = orjson.OPT_NON_STR_KEYS | (orjson.OPT_INDENT_2 if indented else 0)
    say(orjson.dumps(value, option=option).decode())
