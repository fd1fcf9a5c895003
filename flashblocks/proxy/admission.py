"""What a request line of the public port means: which door, which key, which filter, which format – or a refusal."""

from typing import Literal, NamedTuple

from flashblocks.proxy.filters import BadFilter, Filter, parse_filter
from flashblocks.proxy.limits import Limits, Refused

Format = Literal["text", "binary", "brotli", "frame"]

subprotocols: dict[str, Format] = {
    "flashblocks.frame.v1": "frame",
    "flashblocks.json.v1": "text",
    "flashblocks.json-binary.v1": "binary",
    "flashblocks.json-brotli.v1": "brotli",
}
"""Sub-protocols a client may ask for; one without any gets the format the operator set."""

formats: dict[str, Format] = {"text": "text", "binary": "binary", "brotli": "brotli"}


class Door(NamedTuple):
    """Where a client wants in, before any limit was looked at."""

    key: str | None
    filter: Filter | None
    format: Format | None
    """The format asked for by `?format=`, None for the default; a sub-protocol overrules both."""
    announcements: bool
    """True when gap announcements are wanted beside flashblocks (`?announce=true`)."""


def find_door(path: str, parameters: dict[str, str], limits: Limits, *, public: bool) -> Door | Refused:
    """Read a path and its query.

    `/ws` is open where no API keys are configured, or where `public` says so; `/ws/{key}` and `/ws/{key}/filter` are
    there only with keys. A filter may also stand in the query of `/ws` itself.
    """
    parts = path.strip("/").split("/")
    if parts[0] != "ws" or len(parts) > 3 or (len(parts) == 3 and parts[2] != "filter"):
        return Refused(404, "not found")
    key = parts[1] if len(parts) > 1 else None
    if key is None and limits.has_keys and not public:
        return Refused(404, "not found")
    if key is not None and not limits.has_keys:
        return Refused(404, "not found")
    wanted = parameters.get("format")
    if wanted is not None and wanted not in formats:
        return Refused(400, "format must be one of " + ", ".join(formats))
    try:
        wish = parse_filter(parameters)
    except BadFilter as error:
        return Refused(400, str(error))
    announcements = parameters.get("announce", "") in ("1", "true")
    return Door(key, wish, formats[wanted] if wanted is not None else None, announcements)


def pick_subprotocol(offered: list[str]) -> str | None:
    """Pick the first offered sub-protocol we speak; None when there is none, which is fine."""
    return next((name for name in offered if name in subprotocols), None)
