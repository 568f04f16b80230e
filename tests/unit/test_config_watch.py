"""Live reload: a good edit is in force once it has rested, and no fault ever loses the last good rules."""

import asyncio
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from signalbox.config.load import RulesError
from signalbox.config.rules import Rules
from signalbox.config.secrets import commands_of
from signalbox.config.watch import Live

GOOD = "providers:\n  zai: {url: https://h, key: '${ZAI:-none}'}\nrules:\n  - {match: '*', to: zai/one}\n"
OTHER = GOOD.replace("zai/one", "zai/two")


class Desk:
    """A rules file, what watches it, and what was said about it."""

    def __init__(self, path: Path, text: str = GOOD, poll: float = 0.01) -> None:
        self.path = path
        self.said: list[tuple[str, str]] = []
        self.write(text)
        self.live = Live(path, dict(os.environ), log=lambda *line: self.said.append(line), poll=poll)
        self.live.start()

    def write(self, text: str | bytes) -> None:
        self.path.write_bytes(text if isinstance(text, bytes) else text.encode())

    def look(self, times: int = 2) -> None:
        """What was written takes effect at the second look: the first lets it rest."""

        async def looks() -> None:
            for _ in range(times):
                await self.live.look()

        asyncio.run(looks())

    @property
    def model(self) -> str | None:
        return self.live.rules.rules[0].choices[0][0].model


@pytest.fixture
def desk(tmp_path):
    desk = Desk(tmp_path / "rules.yaml")
    desk.said.clear()
    return desk


def test_start_logs_what_was_loaded_and_warnings(tmp_path):
    desk = Desk(tmp_path / "rules.yaml", GOOD.replace(":-none", ""))
    assert desk.said == [
        ("info", "rules loaded: 1 provider, 1 rule"),
        ("warn", 'rules.yaml:2: ZAI is not set: provider "zai" is unavailable (at $.providers.zai.key)'),
    ]


def test_a_start_without_a_file_or_with_a_broken_one_is_an_error(tmp_path):
    live = Live(tmp_path / "rules.yaml", {}, log=lambda level, line: None)
    with pytest.raises(
        RulesError, match=r"^rules.yaml:1: .* does not exist: .* --set router_rules=PATH \(at \$\)$"
    ):
        live.start()
    (tmp_path / "rules.yaml").write_text("a: [")
    with pytest.raises(RulesError, match=r"rules.yaml:1: "):
        live.start()


def test_a_start_with_an_empty_file_is_a_pure_pipe_and_stays_one(tmp_path):
    desk = Desk(tmp_path / "rules.yaml", "# nothing yet\n")
    desk.write("")
    desk.look(2)
    assert (desk.live.rules.rules, desk.live.error) == ((), "")


def test_good_edit_is_in_force_once_the_file_is_stable(desk):
    before, heard = desk.live.loaded_at, []
    desk.live.on_change.append(heard.append)
    desk.write(OTHER)
    desk.look()
    assert desk.model == "two"
    assert heard == [desk.live.rules]
    assert desk.said == [("info", "rules loaded: 1 provider, 1 rule")]
    assert desk.live.loaded_at >= before
    assert desk.live.loaded_at.utcoffset().total_seconds() == 0


def test_requests_in_flight_keep_their_rules(desk):
    held = desk.live.rules
    desk.write(OTHER)
    desk.look()
    assert held.rules[0].choices[0][0].model == "one"


def test_an_editor_may_replace_the_file(desk):
    new = desk.path.with_suffix(".new")
    new.write_text(OTHER)
    new.replace(desk.path)
    desk.look()
    assert desk.model == "two"


def test_touched_file_is_not_announced(desk):
    before = desk.live.rules
    os.utime(desk.path, (1, 1))
    desk.look(2)
    assert desk.live.rules is before
    assert desk.said == []


FAULTS: dict[str, Callable[[Path], object]] = {
    "empty": lambda path: path.write_text(""),
    "only a comment": lambda path: path.write_text("# rules\n"),
    "half written": lambda path: path.write_text(GOOD[:-12]),
    "a truncated quote": lambda path: path.write_text('rules:\n  - match: "*ha'),
    "not UTF-8": lambda path: path.write_bytes(b"rules: \xff"),
    "NUL": lambda path: path.write_bytes(b"rules: \0"),
    "tab": lambda path: path.write_text("rules:\n\t- match: x"),
    "unclosed": lambda path: path.write_text("rules: ["),
    "unquoted glob": lambda path: path.write_text("rules:\n- match: *x*\n  to: zai"),
    "duplicate": lambda path: path.write_text("rules: []\nrules: []"),
    "deep": lambda path: path.write_text("[" * 50_000),
    "unknown key": lambda path: path.write_text("rulse: []"),
    "two documents": lambda path: path.write_text("rules: []\n---\nrules: []"),
    "deleted": lambda path: path.unlink(),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


@pytest.mark.parametrize("fault", FAULTS.values(), ids=FAULTS)
def test_error_keeps_the_last_good_rules_and_is_logged_once_the_file_is_stable(desk, fault):
    fault(desk.path)
    desk.look(1)
    assert (desk.live.error, desk.said, desk.model) == ("", [], "one")
    desk.look(3)
    assert "rules.yaml" in desk.live.error
    assert {level for level, _ in desk.said} == {"error"}
    assert desk.said[0][1] == desk.live.error
    assert len(set(desk.said)) == len(desk.said)
    assert desk.model == "one"


@pytest.mark.parametrize("text", [GOOD, OTHER])
def test_good_edit_clears_the_error(desk, text):
    desk.write("rules: [")
    desk.look(2)
    desk.said.clear()
    desk.write(text)
    desk.look()
    assert (desk.live.error, desk.said) == ("", [("info", "rules loaded: 1 provider, 1 rule")])


def test_different_error_is_logged_too(desk):
    for text in ("rules: [", "rulse: []"):
        desk.write(text)
        desk.look(2)
    told = [line for _, line in desk.said if line.startswith("rules.yaml:")]
    assert len(told) == 2
    assert desk.live.error == told[1]
    assert "stay in force" in desk.said[-1][1]


def test_save_in_two_steps_is_no_error(desk):
    desk.write(GOOD[: GOOD.index("rules:")])
    desk.look(1)
    assert desk.model == "one"
    desk.write(OTHER)
    desk.look()
    assert (desk.model, desk.live.error) == ("two", "")
    assert [level for level, _ in desk.said] == ["info"]


def test_dotenv_is_watched_also_where_there_was_none(desk):
    (desk.path.parent / ".env").write_text("ZAI=zai-key-for-tests\n")
    desk.look()
    assert desk.live.rules.providers["zai"].key == "zai-key-for-tests"


def test_the_file_of_a_secret_is_watched(desk):
    desk.write(GOOD.replace("'${ZAI:-none}'", "{file: key}"))
    desk.look()
    assert "key cannot be read" in desk.live.rules.providers["zai"].unavailable
    (desk.path.parent / "key").write_text("file-key-for-tests")
    desk.look()
    assert desk.live.rules.providers["zai"].key == "file-key-for-tests"


def test_error_may_be_fixed_in_another_file(desk):
    desk.write(OTHER + "clients: {me: {file: secret}}\n")
    desk.look(2)
    assert "secret cannot be read" in desk.live.error
    (desk.path.parent / "secret").write_text("client-secret-for-tests")
    desk.look()
    assert (desk.live.error, desk.live.rules.clients) == ("", {"me": "client-secret-for-tests"})


def test_failing_callback_is_logged_and_the_others_are_called(desk):
    heard = []
    desk.live.on_change += [lambda rules: 1 / 0, heard.append]
    desk.write(OTHER)
    desk.look()
    assert heard == [desk.live.rules]
    assert any("ZeroDivisionError" in line for _, line in desk.said)


class FailingPath(type(Path())):
    """A path whose `stat` raises this, once."""

    failure: Exception | None = None

    def stat(self, **options):
        failure, self.failure = self.failure, None
        if failure is not None:
            raise failure
        return super().stat(**options)


def test_watching_survives_any_error_and_sees_the_next_edit(tmp_path):
    path = FailingPath(tmp_path / "rules.yaml")
    desk = Desk(path)
    desk.said.clear()
    path.failure = RuntimeError("the disk is gone")

    async def scenario() -> None:
        seen = asyncio.Event()
        desk.live.on_change.append(lambda rules: seen.set())
        watching = asyncio.create_task(desk.live.watch())
        desk.write(OTHER)
        await asyncio.wait_for(seen.wait(), 10)
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(scenario())
    assert desk.model == "two"
    assert desk.said[0] == ("error", "a look at rules.yaml failed: RuntimeError('the disk is gone')")


COUNTER = "import pathlib; p = pathlib.Path('n'); p.write_text(p.read_text() + 'x'); print(p.read_text())"

CONSTANT = "import pathlib; p = pathlib.Path('n'); p.write_text(p.read_text() + 'x'); print('fake-key')"


@pytest.fixture
def counting(tmp_path):
    """The key is as many x as the command has run."""
    (tmp_path / "n").write_text("")
    text = GOOD.replace("'${ZAI:-none}'", f"{{command: ['{sys.executable}', -c, \"{COUNTER}\"]}}")
    return Desk(tmp_path / "rules.yaml", text)


def refusals(desk: Desk, since: float, count: int = 1) -> str | None:
    """The key after so many refusals at once, to requests sent at `since`."""

    async def refused() -> None:
        await asyncio.gather(*(desk.live.renew(*commands_of(desk.live.rules), since) for _ in range(count)))

    asyncio.run(refused())
    return desk.live.rules.providers["zai"].key


def test_a_command_runs_again_after_a_refusal_and_once_for_many(counting):
    sent = time.monotonic()
    assert refusals(counting, sent, count=3) == "xx"
    assert refusals(counting, sent) == "xx"
    assert refusals(counting, time.monotonic()) == "xxx"


def test_command_that_prints_the_same_again_is_not_run_for_a_time(counting):
    counting.write(GOOD.replace("'${ZAI:-none}'", f"{{command: ['{sys.executable}', -c, \"{CONSTANT}\"]}}"))
    counting.look()
    for _ in range(3):
        assert refusals(counting, time.monotonic()) == "fake-key"
    assert (counting.path.parent / "n").read_text() == "xxx"


def test_a_command_that_fails_leaves_the_key(counting, tmp_path):
    (tmp_path / "n").unlink()
    assert refusals(counting, time.monotonic()) == "x"
    assert "what it printed before stays in use" in counting.said[-1][1]


@pytest.mark.slow
def test_a_command_runs_ahead_of_each_period(counting):
    counting.write(counting.path.read_text().replace("{command:", "{every: 1s, command:"))
    counting.look()

    async def scenario() -> None:
        watching = asyncio.create_task(counting.live.watch())
        began, before = time.monotonic(), counting.live.rules.providers["zai"].key
        changed = asyncio.Event()
        counting.live.on_change.append(lambda _: changed.set())
        await asyncio.wait_for(changed.wait(), 5)
        assert counting.live.rules.providers["zai"].key != before
        assert 0.5 < time.monotonic() - began < 5
        watching.cancel()
        await asyncio.gather(watching, return_exceptions=True)

    asyncio.run(scenario())


def test_unchanged_file_is_not_loaded_again_nor_its_commands_run(counting):
    counting.said.clear()
    counting.look(3)
    assert (counting.live.rules.providers["zai"].key, counting.said) == ("x", [])


def test_an_edit_elsewhere_is_in_force_without_running_the_commands_again(counting):
    counting.write(counting.path.read_text().replace("zai/one", "zai/two"))
    counting.look()
    assert (counting.model, counting.live.rules.providers["zai"].key) == ("two", "x")


@pytest.mark.parametrize("edit", [("{command:", "{every: 60s, command:"), ("print(", "print(''+")])
def test_an_edited_command_runs(counting, edit):
    counting.write(counting.path.read_text().replace(*edit))
    counting.look()
    assert counting.live.rules.providers["zai"].key == "xx"


def test_a_command_that_failed_runs_again_after_each_edit_which_does_not_wait_for_it(counting, tmp_path):
    (tmp_path / "n").unlink()
    counting.write(counting.path.read_text().replace("{command:", "{every: 60s, command:"))
    counting.look()
    assert counting.live.rules.providers["zai"].unavailable
    (tmp_path / "n").write_text("xx")
    counting.write(counting.path.read_text().replace("zai/one", "zai/two"))
    assert changes(counting) == [("two", None), ("two", "xxx")]
    assert counting.live.rules.providers["zai"].unavailable == ""


def test_a_command_runs_again_after_an_edit_of_its_environment_which_does_not_wait_for_it(counting, tmp_path):
    (tmp_path / ".env").write_text("VAULT_TOKEN=fake-token\n")
    assert changes(counting) == [("one", "x"), ("one", "xx")]


def changes(desk: Desk) -> list[tuple[str | None, str | None]]:
    """The model and the key of the next two rules in force."""
    found = []

    async def scenario() -> None:
        both = asyncio.Event()

        def note(rules: Rules) -> None:
            found.append((desk.model, rules.providers["zai"].key))
            if len(found) == 2:
                both.set()

        desk.live.on_change.append(note)
        for _ in range(2):
            await desk.live.look()
        await asyncio.wait_for(both.wait(), 10)

    asyncio.run(scenario())
    return found


def test_an_edit_of_the_environment_during_a_run_counts_too(counting, tmp_path):
    waits = (
        "import os, pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\n"
        "print('fake-' + os.environ['T'])"
    )
    (tmp_path / ".env").write_text("T=one\n")
    (tmp_path / "go").touch()
    counting.write(
        GOOD.replace("'${ZAI:-none}'", f"{{command: {json.dumps([sys.executable, '-c', waits])}}}")
    )
    counting.look()
    assert counting.live.rules.providers["zai"].key == "fake-one"
    (tmp_path / "go").unlink()

    async def scenario() -> None:
        renewed = asyncio.Event()
        for value in ("two", "three"):
            (tmp_path / ".env").write_text(f"T={value}\n")
            for _ in range(2):
                await counting.live.look()
        counting.live.on_change.append(lambda _: renewed.set())
        (tmp_path / "go").touch()
        await asyncio.wait_for(renewed.wait(), 10)

    asyncio.run(scenario())
    assert counting.live.rules.providers["zai"].key == "fake-three"


def test_a_refusal_soon_after_a_run_of_another_cause_runs_the_command_again(counting, tmp_path):
    counting.write(GOOD.replace("'${ZAI:-none}'", f"{{command: ['{sys.executable}', -c, \"{CONSTANT}\"]}}"))
    counting.look()

    async def scenario() -> None:
        (tmp_path / ".env").write_text("VAULT_TOKEN=fake-token\n")
        for _ in range(2):
            await counting.live.look()
        for _ in range(2):  # the first one may share the run that the edit began
            await counting.live.renew(*commands_of(counting.live.rules), time.monotonic())

    asyncio.run(scenario())
    assert (tmp_path / "n").read_text() == "xxxx"


def test_reload_by_hand_runs_each_command_again(counting):
    asyncio.run(counting.live.reload())
    assert counting.live.rules.providers["zai"].key == "xx"


def test_key_renewed_during_a_load_stays(counting, tmp_path):
    waits = "import pathlib, time\nwhile not pathlib.Path('go').exists(): time.sleep(0.01)\nprint('fake-key')"
    other = (
        f"  other: {{url: https://h, key: {{command: {json.dumps([sys.executable, '-c', waits])}}}}}\nrules:"
    )

    async def scenario() -> None:
        counting.write(counting.path.read_text().replace("rules:", other))
        await counting.live.look()
        loading = asyncio.create_task(counting.live.look())
        await counting.live.renew(*commands_of(counting.live.rules), time.monotonic())
        assert not loading.done()
        (tmp_path / "go").touch()
        await loading

    asyncio.run(scenario())
    keys = {name: provider.key for name, provider in counting.live.rules.providers.items()}
    assert keys == {"zai": "xx", "other": "fake-key"}


def test_refused_key_runs_its_command_also_while_the_file_is_broken(counting):
    counting.write("rules: [")
    counting.look()
    assert refusals(counting, time.monotonic()) == "xx"


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such pipes")
@pytest.mark.parametrize("name", ["rules.yaml", ".env"])
def test_pipe_in_place_of_the_file_is_an_error_and_the_next_edit_is_seen(desk, name, tmp_path):
    (tmp_path / name).unlink(missing_ok=True)
    os.mkfifo(tmp_path / name)
    desk.look()
    assert "it is not a regular file" in desk.live.error
    (tmp_path / name).unlink()
    desk.write(OTHER)
    desk.look()
    assert (desk.live.error, desk.model) == ("", "two")
