"""The Engine API's bearer tokens (execution-apis, engine/authentication.md): HS256 and an `iat` within a minute."""

from __future__ import annotations

import jwt as pyjwt
from jwt.types import Options

SECRET_BYTES = 32
IAT_TOLERANCE_S = 60


class TokenError(ValueError):
    """The token is missing, forged, stale or from the future; the text is what geth answers."""


def read_secret(text: str) -> bytes:
    """Read a secret as its file holds it: 32 bytes in hex, with or without 0x; raises TokenError."""
    digits = text.strip().removeprefix("0x")
    try:
        secret = bytes.fromhex(digits)
    except ValueError:
        raise TokenError("JWT secret: not hexadecimal") from None
    if len(secret) != SECRET_BYTES:
        raise TokenError(f"JWT secret: expected {SECRET_BYTES} bytes, got {len(secret)}")
    return secret


def make_token(secret: bytes, now: float) -> str:
    """Sign a token issued at `now` (Unix seconds)."""
    return pyjwt.encode({"iat": int(now)}, secret, algorithm="HS256")


def check_token(secret: bytes, header: str | None, now: float) -> None:
    """Check an Authorization header; raises TokenError with geth's words. `exp` is honoured when present."""
    if not header or not header.startswith("Bearer "):
        raise TokenError("missing token")
    # the caller's clock decides, not the library's
    options: Options = {"verify_iat": False, "verify_exp": False, "verify_nbf": False, "verify_aud": False}
    try:
        claims = pyjwt.decode(header.removeprefix("Bearer ").strip(), secret, algorithms=["HS256"], options=options)
    except pyjwt.InvalidTokenError as error:
        raise TokenError(f"invalid token: {error}") from None
    issued_at = claims.get("iat")
    if not isinstance(issued_at, int | float):
        raise TokenError("missing issued-at")
    if now - issued_at > IAT_TOLERANCE_S:
        raise TokenError("stale token")
    if issued_at - now > IAT_TOLERANCE_S:
        raise TokenError("future token")
    expires_at = claims.get("exp")
    if isinstance(expires_at, int | float) and expires_at < now:
        raise TokenError("token is expired")
