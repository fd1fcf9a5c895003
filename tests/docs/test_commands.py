"""Every command and link of README and docs: the commands exist and take these options, the links lead somewhere."""

import argparse
import ast
import importlib
import re
import shlex
from pathlib import Path

import pytest

from chaos.cli import parser as drill_parser
from cli.host_ray import parser as ray_parser
from cli.main import COMMANDS

ROOT = Path(__file__).parents[2]
WHOLE_PARSERS = {"drill": drill_parser, "ray": ray_parser}
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def blocks(page: Path, language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", page.read_text(), re.S | re.M)


def commands() -> list[tuple[str, str]]:
    lines = [(page.name, line) for page in PAGES for block in blocks(page, "console") for line in block.splitlines()]
    return [(page, line) for page, line in lines if line.strip()]


@pytest.mark.parametrize(("page", "line"), commands())
def test_a_command_in_the_docs_is_taken(page: str, line: str) -> None:
    program, *words = shlex.split(line.removeprefix("sudo "), comments=True)
    if program == "ray":
        check_ray(page, words)
        return
    if program.startswith(".venv/bin/"):
        assert program in (".venv/bin/pytest", ".venv/bin/python"), program
        assert (ROOT / words[-1]).exists(), f"{page}: {words[-1]}"
        return
    if program == "make":
        targets = re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.M)
        assert set(words) <= set(targets)
        return
    assert program == "flashblocks", f"{page}: what is {program}?"
    module = importlib.import_module(COMMANDS[words[0]][0])
    if words[0] in WHOLE_PARSERS:
        parsed = WHOLE_PARSERS[words[0]]().parse_args(words[1:])
    else:
        one = argparse.ArgumentParser(exit_on_error=False)
        module.configure(one, words[1:])
        arguments = [word for word in words[1:] if word != "--help"]
        parsed = one.parse_known_args(arguments)[0] if len(arguments) < len(words) - 1 else one.parse_args(arguments)
    assert parsed is not None


def check_ray(page: str, words: list[str]) -> None:
    """Ray's launcher: a file of ours, and what it is told to execute is a command of ours."""
    assert words[0] in ("up", "down", "exec"), words
    file = next(word for word in words[1:] if not word.startswith("-"))
    assert (ROOT / file).exists() or (ROOT / "docs" / file).exists(), f"{page}: {file}"
    if words[0] == "exec":
        test_a_command_in_the_docs_is_taken(page, words[-1])


def test_the_docs_are_not_empty() -> None:
    assert len(commands()) > 10


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_python_in_the_docs_compiles_and_imports_what_exists(page: Path) -> None:
    for block in blocks(page, "python"):
        for node in ast.walk(ast.parse(block)):
            if isinstance(node, ast.ImportFrom) and node.module:
                module = importlib.import_module(node.module)
                assert all(hasattr(module, name.name) for name in node.names), f"{page.name}: {node.module}"
