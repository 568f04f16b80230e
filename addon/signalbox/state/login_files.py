"""The files in which programs keep the logins of their users. They are never refreshed or written here.

Claude Code: `.credentials.json`, `{"claudeAiOauth": {"accessToken", "expiresAt" in milliseconds, ...}}`
(claude-code-gateway.md, 6). Codex: `auth.json`, `{"auth_mode", "OPENAI_API_KEY", "tokens": {"access_token",
"id_token", "account_id", ...}}`, both tokens being JWT (openai-responses.md, 9).
"""

import base64
import binascii
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import msgspec

from signalbox.config import fields
from signalbox.config.rules import Auth


class Login(msgspec.Struct, frozen=True):
    """`token` is None if the folder has no usable login; `reason` then says why."""

    token: str | None = None
    reason: str = ""
    expires: float = float("inf")
    """Unix seconds."""
    account: str = ""
    """The id of the account, if the provider wants it named."""

    def __repr__(self) -> str:
        return "Login(***)" if self.token else f"Login(reason={self.reason!r})"


class LoginFormat(NamedTuple):
    """How one program keeps a login in its folder."""

    file: str
    parse: Callable[[str | bytes, Path], Login]
    missing: str
    """The reason where there is no file. `{}` is the folder."""
    expired: str
    """The reason where the token has expired."""


def parsed_claude(text: str | bytes, folder: Path) -> Login:
    try:
        login = msgspec.json.decode(text, type=_Credentials).login
    except _UNREADABLE:
        return _unreadable(folder)
    token = fields.parse_secret(login.access).value if login is not None else None
    if login is None or token is None:
        return Login(None, f"there is no login in {folder}")
    return Login(token) if login.expires is None else Login(token, expires=login.expires / 1000)


def parsed_codex(text: str | bytes, folder: Path) -> Login:
    try:
        auth = msgspec.json.decode(text, type=_CodexAuth)
    except _UNREADABLE:
        return _unreadable(folder, ": run codex login")
    tokens = auth.tokens or _CodexTokens()
    token = fields.parse_secret(tokens.access_token or "").value
    if token is None or auth.auth_mode == "apikey":
        what = "an API key and no plan's" if auth.OPENAI_API_KEY else "no plan's"
        return Login(None, f"the login in {folder} is {what}: run codex login")
    access = _claims(token)
    about = access.auth or _claims(tokens.id_token).auth or _AuthClaim()
    return Login(
        token,
        expires=float("inf") if access.exp is None else access.exp,
        account=tokens.account_id or about.chatgpt_account_id or "",
    )


CLAUDE = LoginFormat(
    ".credentials.json",
    parsed_claude,
    missing="there is no login in {}",
    expired="the login in {} has expired: use Claude Code there to renew it",
)
CODEX = LoginFormat(
    "auth.json",
    parsed_codex,
    missing="there is no auth.json in {}: run codex login (a login in the system's keyring cannot be read)",
    expired="the login in {} has expired: run codex login",
)
FORMATS: dict[Auth, LoginFormat] = {"claude-login": CLAUDE, "codex-login": CODEX}
"""By the `auth` that uses such a login."""

_UNREADABLE = (msgspec.DecodeError, RecursionError)


class _OAuth(msgspec.Struct):
    access: str = msgspec.field(default="", name="accessToken")
    expires: float | None = msgspec.field(default=None, name="expiresAt")


class _Credentials(msgspec.Struct):
    login: _OAuth | None = msgspec.field(default=None, name="claudeAiOauth")


class _CodexTokens(msgspec.Struct):
    access_token: str | None = None
    id_token: object = None
    """A JWT; an object in files of older versions."""
    account_id: str | None = None


class _CodexAuth(msgspec.Struct):
    auth_mode: str | None = None
    OPENAI_API_KEY: str | None = None
    tokens: _CodexTokens | None = None


class _AuthClaim(msgspec.Struct):
    chatgpt_account_id: str | None = None


class _Claims(msgspec.Struct):
    exp: float | None = None
    """Unix seconds."""
    auth: _AuthClaim | None = msgspec.field(default=None, name="https://api.openai.com/auth")


def _claims(token: object) -> _Claims:
    """The claims of a JWT (RFC 7519), whose signature is not checked; none for any other value."""
    parts = token.split(".") if isinstance(token, str) else []
    if len(parts) == 3:
        with suppress(*_UNREADABLE, binascii.Error, ValueError):
            payload = base64.urlsafe_b64decode(parts[1] + "=" * (-len(parts[1]) % 4))
            return msgspec.json.decode(payload, type=_Claims)
    return _Claims()


def _unreadable(folder: Path, remedy: str = "") -> Login:
    return Login(None, f"the login in {folder} cannot be read: it is not the JSON that is expected{remedy}")
