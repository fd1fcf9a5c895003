"""The compiler's values: words that are known, words still to be computed, and the ways out of a trace."""

from typing import NamedTuple


class Expression(NamedTuple):
    """A word that is not computed yet: Python without side effects over locals that never change, used at most once."""

    text: str
    depth: int  # how many expressions are nested in it, itself included


class Condition(NamedTuple):
    """A truth value that has not become a word: `text`, or its opposite."""

    text: str
    negated: bool = False
    depth: int = 1

    def render(self) -> str:
        """As a Python expression."""
        return f"not ({self.text})" if self.negated else self.text


Word = str | Expression | Condition  # a local's name or a decimal literal; or something still to be computed


class Leave(NamedTuple):
    """Write the words back to the frame's stack and go on at `target`."""

    words: tuple[str, ...]
    window: int
    target: str


class Branch(NamedTuple):
    """If `condition`: leave (or fail, where `failure` says how)."""

    condition: str
    leave: Leave
    check: str | None  # a statement before leaving


class Trace(NamedTuple):
    """A finished trace."""

    source: str
    ops: int


def is_literal(word: Word) -> bool:
    """Whether a word is a constant of the code."""
    return isinstance(word, str) and word.isdigit()


def depth_of(word: Word) -> int:
    """How deeply the word is nested when it is written in place."""
    return 0 if isinstance(word, str) else word.depth
