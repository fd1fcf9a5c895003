"""``flashblocks run COMPONENT``: one component as a plain process, for operators and for taking parts apart.

Its flags are the fields of the component's Settings and the flag names of the component it stands for; the
environment names of both are read too.
"""

from __future__ import annotations

import argparse
import os
from typing import Any

from actors.aliases import aliases_of, without_effect
from actors.process import COMPONENTS
from cli.output import CommandError, note


def configure(parser: argparse.ArgumentParser, arguments: list[str]) -> None:
    """Add the component and, when it is named, a flag for each of its settings."""
    parser.formatter_class = argparse.HelpFormatter
    parser.allow_abbrev = False  # the settings of a component may begin alike
    parser.add_argument(
        "component", choices=sorted(COMPONENTS), metavar="COMPONENT", help=", ".join(sorted(COMPONENTS))
    )
    if arguments and arguments[0] in COMPONENTS:
        _add_flags(parser, arguments[0])


def _add_flags(parser: argparse.ArgumentParser, component: str) -> None:
    import msgspec

    from actors.process import settings_type
    from actors.settings import flag_of

    upstream: dict[str, list[str]] = {}
    for flag, alias in aliases_of(component).items():
        upstream.setdefault(alias.field, []).append(flag)
    for field in msgspec.structs.fields(settings_type(component)):
        own = flag_of(field.name)
        # A switch is set by naming it, as in the originals.
        bare: dict[str, Any] = {"nargs": "?", "const": "true"} if isinstance(field.default, bool) else {}
        parser.add_argument(own, dest=field.name, default=None, metavar="VALUE", help=_help(field), **bare)
        for flag in upstream.get(field.name, []):
            if f"--{flag}" != own:
                parser.add_argument(f"--{flag}", dest=f"upstream {flag}", default=None, help=argparse.SUPPRESS, **bare)
    for flag in without_effect(component):
        parser.add_argument(f"--{flag}", dest=f"ignored {flag}", nargs="?", const="true", help=argparse.SUPPRESS)


def _help(field: Any) -> str:
    import msgspec

    if field.required:
        return "required"
    default = field.default if field.default is not msgspec.NODEFAULT else field.default_factory()
    return f"default: {default!r}".replace("%", "%%")


def run(options: argparse.Namespace) -> int:
    """Run the component until it is told to end."""
    from actors.process import run_component, settings_type
    from actors.settings import SettingsError, from_environment

    component = options.component
    aliases = aliases_of(component)
    values = from_environment(component, settings_type(component), os.environ, note)
    given = {key: value for key, value in vars(options).items() if value is not None and key != "component"}
    for key in [key for key in given if key.startswith("ignored ")]:
        del given[key]
        flag = key.removeprefix("ignored ")
        note(f"--{flag} has no effect: {without_effect(component)[flag]}")
    for key, value in given.items():
        if key.startswith("upstream "):
            alias = aliases[key.removeprefix("upstream ")]
            values.update(alias.values(value))
    values.update({key: value for key, value in given.items() if not key.startswith("upstream ")})
    values.setdefault("name", component)
    try:
        return run_component(component, values)
    except SettingsError as error:
        raise CommandError(str(error), status=2) from None
