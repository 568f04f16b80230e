"""Logins as Claude Code keeps them, and whose a credential is."""

import asyncio
import base64
import json
import os
import threading
from pathlib import Path
from typing import Any

import pytest

from signalbox.config.fields import Url
from signalbox.config.rules import Provider, Rules
from signalbox.state.login_files import CODEX, Login
from signalbox.state.logins import (
    EVERY,
    LARGEST,
    REMEMBERED,
    Accounts,
    Logins,
    MacKeychain,
    ProviderLogins,
    services,
)

TOKEN = "sk-ant-oat01-fake-login-of-nobody"
OTHER = "sk-ant-oat01-fake-login-for-work"
NOW = 1795176000.0


def kept(token: Any = TOKEN, expires: Any = (NOW + 60) * 1000) -> str:
    return json.dumps({"claudeAiOauth": {"accessToken": token, "expiresAt": expires}, "mcpOAuth": {}})


def write(folder: Path, text: str) -> Path:
    folder.mkdir(exist_ok=True)
    written = folder / "new"
    written.write_text(text)
    written.replace(folder / ".credentials.json")
    return folder


class ReadLogins(Logins):
    """Reads a folder whenever it is asked for its login."""

    def latest(self, folder: Path) -> Login:
        self.read([folder])
        return super().latest(folder)


def test_a_login_is_used_as_it_was_last_read(tmp_path):
    logins = Logins()
    write(tmp_path, kept(TOKEN))
    assert logins.of(tmp_path, NOW).reason == f"the login in {tmp_path} has not been read yet"
    asyncio.run(logins.read_soon([tmp_path]))
    assert logins.of(tmp_path, NOW).token == TOKEN
    write(tmp_path, kept(OTHER))
    assert logins.of(tmp_path, NOW).token == TOKEN
    logins.read([tmp_path])
    assert logins.of(tmp_path, NOW).token == OTHER


def test_the_token_is_the_one_in_the_file(tmp_path):
    assert ReadLogins().of(write(tmp_path, kept()), NOW).token == TOKEN


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (kept(expires=NOW * 1000), "the login in {} has expired: use Claude Code there to renew it"),
        (kept(token=""), "there is no login in {}"),
        (kept(token="two\nlines"), "there is no login in {}"),
        ("{}", "there is no login in {}"),
        ('{"claudeAiOauth": null}', "there is no login in {}"),
        ("{", "the login in {} cannot be read: it is not the JSON that is expected"),
        (
            '{"mcpOAuth": ' + "[" * 10**5,
            "the login in {} cannot be read: it is not the JSON that is expected",
        ),
        (kept(token=5), "the login in {} cannot be read: it is not the JSON that is expected"),
    ],
)
def test_a_login_that_cannot_be_used_has_a_reason(tmp_path, text, reason):
    login = ReadLogins().of(write(tmp_path, text), NOW)
    assert (login.token, login.reason) == (None, reason.format(tmp_path))


def test_a_login_may_begin_with_a_byte_order_mark(tmp_path):
    write(tmp_path, "\ufeff" + kept())
    assert ReadLogins().of(tmp_path, NOW).token == TOKEN


def test_a_login_that_is_not_there_has_a_reason(tmp_path):
    assert ReadLogins().of(tmp_path / "none", NOW).reason == f"there is no login in {tmp_path / 'none'}"
    (tmp_path / ".credentials.json").mkdir()
    assert "cannot be read" in ReadLogins().of(tmp_path, NOW).reason


@pytest.mark.parametrize("make", [os.mkfifo, lambda file: file.write_bytes(bytes(LARGEST + 1))])
def test_what_would_hold_requests_up_is_not_read(tmp_path, make):
    make(tmp_path / ".credentials.json")
    assert "it is no file, or too large" in ReadLogins().of(tmp_path, NOW).reason


def test_a_login_without_an_end_does_not_expire(tmp_path):
    assert ReadLogins().of(write(tmp_path, kept(expires=None)), NOW).token == TOKEN


def test_a_change_is_seen_at_the_next_use(tmp_path):
    logins = ReadLogins()
    assert logins.of(write(tmp_path, kept(TOKEN)), NOW).token == TOKEN
    assert logins.of(write(tmp_path, kept(OTHER)), NOW).token == OTHER
    (tmp_path / ".credentials.json").unlink()
    assert logins.of(tmp_path, NOW).token is None


@pytest.mark.parametrize(
    ("auth", "file", "reason"),
    [
        ("claude-login", ".credentials.json", "there is no login in {}"),
        (
            "codex-login",
            "auth.json",
            "there is no auth.json in {}: run codex login (a login in the system's keyring cannot be read)",
        ),
    ],
)
def test_only_a_provider_with_a_login_of_its_own_is_refused_for_want_of_it(tmp_path, auth, file, reason):
    url = Url("https", "provider.example", 443)
    own = Provider(name="own", url=url, auth=auth, login=tmp_path)
    home = Provider(name="home", url=url, auth="client", login=tmp_path)
    rules, logins = Rules(providers={"own": own, "home": home}), ProviderLogins()
    logins.read(rules)
    assert logins.refusal(own, NOW) == ("no-login", reason.format(tmp_path))
    assert logins.refusal(home, NOW) is None
    (tmp_path / file).write_text(kept() if auth == "claude-login" else codex())
    asyncio.run(logins.read_soon(rules))
    assert logins.refusal(own, NOW) is None
    assert logins.tokens(rules) == (logins.of(own, NOW).token,)


def test_a_login_is_not_shown_by_accident(tmp_path):
    assert TOKEN not in repr(ReadLogins().of(write(tmp_path, kept()), NOW))


# Codex


def jwt(**claims: Any) -> str:
    parts = ({"alg": "none"}, claims)
    return ".".join(
        [*(base64.urlsafe_b64encode(json.dumps(one).encode()).decode().rstrip("=") for one in parts), "fake"]
    )


ACCESS = jwt(exp=NOW + 60, **{"https://api.openai.com/auth": {"chatgpt_account_id": "account-of-the-token"}})


def codex(**fields: Any) -> str:
    tokens = {
        "id_token": jwt(),
        "access_token": ACCESS,
        "refresh_token": "fake",
        "account_id": "account-fake",
    }
    auth = {"auth_mode": "chatgpt", "OPENAI_API_KEY": None, "tokens": tokens, "last_refresh": "2026-11-20"}
    return json.dumps(auth | fields)


def codex_login(folder: Path, text: str, now: float = NOW) -> Login:
    (folder / "auth.json").write_text(text)
    logins = Logins(form=CODEX)
    logins.read([folder])
    return logins.of(folder, now)


def tokens(**fields: Any) -> dict[str, Any]:
    return {"access_token": ACCESS, "account_id": "account-fake"} | fields


@pytest.mark.parametrize(
    ("text", "token", "account"),
    [
        (codex(), ACCESS, "account-fake"),
        (codex(tokens=tokens(account_id=None)), ACCESS, "account-of-the-token"),
        (codex(auth_mode=None), ACCESS, "account-fake"),
        (codex(tokens=tokens(id_token={"email": "fake@example"})), ACCESS, "account-fake"),
        (codex(tokens=tokens(access_token="opaque")), "opaque", "account-fake"),
        (codex(tokens=tokens(access_token="a.b.c", account_id=None)), "a.b.c", ""),
        (
            codex(
                tokens={
                    "access_token": jwt(exp=NOW + 1),
                    "id_token": jwt(**{"https://api.openai.com/auth": {"chatgpt_account_id": "of-the-id"}}),
                }
            ),
            jwt(exp=NOW + 1),
            "of-the-id",
        ),
    ],
)
def test_a_codex_login_is_its_access_token_and_its_account(tmp_path, text, token, account):
    login = codex_login(tmp_path, text)
    assert (login.token, login.account) == (token, account)


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (codex(auth_mode="apikey", OPENAI_API_KEY="sk-fake"), "is an API key and no plan's: run codex login"),
        (codex(tokens=None, OPENAI_API_KEY="sk-fake"), "is an API key and no plan's: run codex login"),
        (codex(tokens=None), "is no plan's: run codex login"),
        ("{", "cannot be read: it is not the JSON that is expected: run codex login"),
        ("[]", "cannot be read: it is not the JSON that is expected: run codex login"),
        (codex(tokens=tokens(access_token=jwt(exp=NOW))), "has expired: run codex login"),
    ],
)
def test_a_codex_login_that_cannot_be_used_says_what_to_do(tmp_path, text, reason):
    login = codex_login(tmp_path, text)
    assert (login.token, login.reason) == (None, f"the login in {tmp_path} {reason}")


# the Keychain


class Items:
    """The Keychain of a Mac, with a clock."""

    def __init__(self, **items: str) -> None:
        self.items = items
        self.asked: list[str] = []
        self.now = 0.0
        self.answers = threading.Event()

    def find(self, service: str) -> str | None:
        self.asked.append(service)
        assert self.answers.wait(5)
        return self.items.get(service)


HOME = Path("/Users/x")
DEFAULT_ITEM = "Claude Code-credentials"


def test_its_items_are_called_as_claude_code_calls_them():
    assert services(HOME / ".claude", HOME)[0] == DEFAULT_ITEM
    assert services(Path("/Users/test/.claude-work"), HOME) == ("Claude Code-credentials-03abf0ee",)


def test_it_is_asked_beside_the_requests_and_again_after_a_while():
    items = Items(**{DEFAULT_ITEM: kept(TOKEN)})
    keychain = MacKeychain(items.find, home=HOME, clock=lambda: items.now)
    logins = ReadLogins(keychain)
    assert logins.of(HOME / ".claude", NOW).token is None
    items.answers.set()
    keychain.settle(5)
    assert logins.of(HOME / ".claude", NOW).token == TOKEN
    items.items[DEFAULT_ITEM] = kept(OTHER)
    assert logins.of(HOME / ".claude", NOW).token == TOKEN
    assert items.asked == [DEFAULT_ITEM]
    items.now = EVERY
    logins.of(HOME / ".claude", NOW)
    keychain.settle(5)
    assert logins.of(HOME / ".claude", NOW).token == OTHER


def test_a_file_comes_before_it(tmp_path):
    items = Items()
    keychain = MacKeychain(items.find, home=HOME)
    assert ReadLogins(keychain).of(write(tmp_path, kept()), NOW).token == TOKEN
    assert items.asked == []


def test_what_it_does_not_have_is_no_login(tmp_path):
    items = Items()
    items.answers.set()
    keychain = MacKeychain(items.find, home=HOME)
    assert keychain.read(tmp_path) is None
    keychain.settle(5)
    assert ReadLogins(keychain).of(tmp_path, NOW).reason == f"there is no login in {tmp_path}"


# accounts


@pytest.fixture
def folders(tmp_path: Path) -> tuple[Path, Path]:
    return write(tmp_path / "home", kept(TOKEN)), write(tmp_path / "work", kept(OTHER, expires=0))


def test_a_credential_belongs_to_the_folder_whose_login_it_is(folders):
    accounts = Accounts(ReadLogins())
    assert [accounts.of(folders, secret) for secret in (TOKEN, OTHER, "sk-ant-api03-fake", "", None)] == [
        *map(str, folders),
        *("", "", ""),
    ]
    assert accounts.of((), TOKEN) == ""


def test_a_folder_without_a_login_is_nobodys(tmp_path):
    assert [Accounts(ReadLogins()).of([tmp_path], secret) for secret in (TOKEN, "", None)] == [""] * 3


def test_a_login_that_was_renewed_is_known_for_a_while(folders):
    accounts, (home, _) = Accounts(ReadLogins()), folders
    tokens = [f"{TOKEN}-{number}" for number in range(REMEMBERED + 1)]
    for token in tokens:
        write(home, kept(token))
        assert accounts.of(folders, token) == str(home)
    assert [accounts.of(folders, token) for token in tokens] == ["", *[str(home)] * REMEMBERED]


def test_logins_that_change_places_belong_to_where_they_are(folders):
    accounts, (home, work) = Accounts(ReadLogins()), folders
    for here, there in ((TOKEN, OTHER), (OTHER, TOKEN), (TOKEN, OTHER)):
        write(home, kept(here))
        write(work, kept(there))
        assert [accounts.of(folders, secret) for secret in (here, there)] == [str(home), str(work)]


def test_no_credential_is_kept(folders):
    accounts = Accounts(ReadLogins())
    accounts.of(folders, TOKEN)
    assert TOKEN not in repr(vars(accounts)["_seen"])
