"""One way from flags, environment and tables to a component's frozen settings.

Every component has a ``Settings`` struct; its fields are the only names there are.  This module converts text to
their types, refuses unknown keys with a hint, and knows which names operators of the original components would write
instead (`actors/aliases.py`).  Nobody else reads the environment.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Mapping
from types import UnionType
from typing import Any, TypeVar, Union, get_args, get_origin, get_type_hints

import msgspec

from actors.aliases import ENVIRONMENT_PREFIXES, Alias, aliases_of, without_effect

T = TypeVar("T", bound=msgspec.Struct)

OWN_PREFIX = "FLASHBLOCKS_"


class SettingsError(ValueError):
    """Settings that cannot be used; the text names the key and what would be right."""


def load(settings_type: type[T], values: Mapping[str, Any]) -> T:
    """Build the settings from a table of values; text is converted to the field's type.

    Raises `SettingsError` for an unknown key (with the nearest known one), a missing one, or a wrong value.
    """
    known = field_types(settings_type)
    converted: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            raise SettingsError(_unknown(key, known))
        converted[key] = parse_text(key, value, known[key]) if isinstance(value, str) else value
    missing = [field.name for field in msgspec.structs.fields(settings_type) if field.required]
    missing = [name for name in missing if name not in converted]
    if missing:
        raise SettingsError("missing: " + ", ".join(flag_of(name) for name in missing))
    try:
        return msgspec.convert(converted, settings_type, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(str(error)) from error


def field_types(settings_type: type[msgspec.Struct]) -> dict[str, Any]:
    """The resolved type of every field, by name, in the order of definition."""
    hints = get_type_hints(settings_type)
    return {field.name: hints[field.name] for field in msgspec.structs.fields(settings_type)}


def flag_of(field: str) -> str:
    """``rpc_port`` → ``--rpc-port``."""
    return "--" + field.replace("_", "-")


def parse_text(key: str, text: str, wanted: Any) -> Any:
    """Convert *text* to the type *wanted*: lists are comma-separated, tables are ``key=value`` pairs."""
    kinds = get_args(wanted) if get_origin(wanted) in (Union, UnionType) else (wanted,)
    if str in kinds:
        return text
    origins = {get_origin(kind) or kind for kind in kinds}
    if dict in origins:
        pairs = [pair.partition("=") for pair in _split(text)]
        if not all(separator for _, separator, _ in pairs):
            raise SettingsError(f"{flag_of(key)}: expected key=value pairs separated by commas, got {text!r}")
        return {name.strip(): value.strip() for name, _, value in pairs}
    if origins & {list, tuple}:
        return _split(text)
    try:
        return msgspec.convert(text, wanted, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(f"{flag_of(key)}: {str(error)[0].lower()}{str(error)[1:]}, got {text!r}") from error


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _unknown(key: str, known: Iterable[str]) -> str:
    near = difflib.get_close_matches(key, list(known), n=1)
    hint = f"did you mean {flag_of(near[0])}?" if near else "known: " + ", ".join(flag_of(name) for name in known)
    return f"unknown setting {flag_of(key)}; {hint}"


def from_environment(
    component: str, settings_type: type[msgspec.Struct], environment: Mapping[str, str], warn: Callable[[str], None]
) -> dict[str, Any]:
    """The values the environment gives to *component*'s settings.

    Our own names are ``FLASHBLOCKS_<COMPONENT>_<FIELD>``; the names of the component it stands for are accepted where
    the meaning exists here.  A name that begins like one of these and is not known is *warned* about, never silent.
    """
    known = field_types(settings_type)
    own_prefix = f"{OWN_PREFIX}{component.upper().replace('-', '_')}_"
    by_name = {own_prefix + field.upper(): Alias(field) for field in known}
    for alias_name, alias in aliases_of(component).items():
        if alias.field in known:
            by_name.setdefault(environment_name(component, alias_name), alias)
    ignored = {environment_name(component, flag): why for flag, why in without_effect(component).items()}
    values: dict[str, Any] = {}
    for name, text in environment.items():
        meant = by_name.get(name)
        if meant is not None:
            own = name.startswith(own_prefix)
            for field, value in meant.values(text).items():
                if field in known and (own or field not in values):
                    values[field] = value
        elif name in ignored and _looks_like(component, name):
            warn(f"{name} has no effect: {ignored[name]}")
        elif name.startswith(own_prefix) or _looks_like(component, name):
            warn(f"{name} is not a setting of {component}; it is ignored")
    return values


def environment_name(component: str, flag: str) -> str:
    """The upstream environment name of an upstream flag: prefix, upper case, underscores."""
    return ENVIRONMENT_PREFIXES.get(component, "") + flag.upper().replace(".", "_").replace("-", "_")


def _looks_like(component: str, name: str) -> bool:
    prefix = ENVIRONMENT_PREFIXES.get(component, "")
    return bool(prefix) and name.startswith(prefix)
