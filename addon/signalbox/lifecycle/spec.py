"""What a router is started with, and what follows from it. Nothing here starts, reads or writes anything."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal, NamedTuple

import msgspec

from signalbox.config.fields import Listen

ANTHROPIC = "https://api.anthropic.com"
"""Upstream of reverse listeners."""
DEFAULT_LISTENER = Listen("127.0.0.1", 8082)
"""Where a router listens if neither the rules nor its arguments say it."""
WEB_PORT = 8081
"""Default port of mitmweb's pages."""
FAIL_OPEN = "SIGNALBOX_FAIL_OPEN"
"""Variable of the router's environment: rules that are broken at the start do not end it."""
BACKGROUND = "SIGNALBOX_BACKGROUND"
"""Variable of the router's environment: its console is a file, which gets no words of a prompt."""
LOG = "signalbox.log"
"""In the state folder: the log of its router in the background."""
COLUMNS = ("icon", "path", "comment", "status", "time")
"""Columns of mitmweb's list of flows; the comment tells rule, attempts and cost."""
_MODE = re.compile(r"@(?:(?P<host>[^@]*):)?(?P<port>\d{1,5})$")


class RouterSpec(msgspec.Struct, frozen=True):
    """What a router is started with. Paths are absolute."""

    modes: tuple[str, ...]
    """mitmproxy's: see `reverse` and `regular`. The first is the one whose `/health` is asked."""
    rules: Path
    state: Path
    script: Path
    """router.py."""
    program: Literal["mitmdump", "mitmweb"] = "mitmdump"
    arguments: tuple[str, ...] = ()
    """Further ones of mitmproxy."""
    env_file: Path | None = None
    """Sets variables that the environment lacks."""
    listens_by_rules: bool = False
    """Whether the first modes are the listeners of `listen` in the rules, which a restart reads again."""
    fail: Literal["open", "closed"] = "open"
    """Whether rules that are broken at the start do not end it."""
    log: str = ""
    """File in the state folder that its console goes to; empty: standard output."""
    registered: bool = True
    """Whether `status`, `stop` and `restart` are about it. A state folder has one such router at a time."""
    service: bool = False
    """Whether the system keeps it running."""
    bound: bool = False
    """Whether it ends when its standard input does, and so with the process that started it."""

    @property
    def listeners(self) -> tuple[Listen, ...]:
        """Where it listens, as far as its modes say, those in `arguments` too."""
        further = (*values(self.arguments, "--mode"), *values(self.arguments, "-m"))
        return tuple(listen for mode in (*self.modes, *further) if (listen := listen_of(mode)) is not None)

    @property
    def web_listener(self) -> Listen | None:
        """Where mitmweb's pages are."""
        if self.program != "mitmweb":
            return None
        asked = [*values(self.arguments, "--web-port"), *values(self.arguments, "--set", "web_port=")]
        hosts = [*values(self.arguments, "--web-host"), *values(self.arguments, "--set", "web_host=")]
        port = next((int(port) for port in asked if port.isdecimal()), WEB_PORT)
        return Listen([*hosts, "127.0.0.1"][0], port)


def encode(value: msgspec.Struct) -> bytes:
    """JSON of a struct that may hold paths."""
    return msgspec.json.encode(value, enc_hook=str)


def decode[T](data: bytes | str, kind: type[T]) -> T:
    """Raises msgspec.DecodeError."""
    return msgspec.json.decode(data, type=kind, dec_hook=lambda path, text: path(text))


def reverse(listen: Listen, upstream: str = ANTHROPIC) -> str:
    """The mode of a listener that stands for Anthropic."""
    return f"reverse:{upstream}@{listen.host}:{listen.port}"


def regular(listen: Listen) -> str:
    """The mode of a forward proxy."""
    return f"regular@{listen.host}:{listen.port}"


def listen_of(mode: str) -> Listen | None:
    """Where a mode listens; None if it does not say."""
    found = _MODE.search(mode)
    return Listen((found["host"] or "").strip("[]"), int(found["port"])) if found else None


def mitmproxy_arguments(spec: RouterSpec) -> list[str]:
    """The arguments of `spec.program`."""
    modes = [part for mode in spec.modes for part in ("--mode", mode)]
    settings = [f"router_rules={spec.rules}", f"router_state={spec.state}"]
    if spec.program == "mitmweb":
        settings += [f"web_columns={column}" for column in COLUMNS]
        settings += ["web_open_browser=false"] if spec.log else []
    return [
        *("-s", str(spec.script)),
        *modes,
        *(part for setting in settings for part in ("--set", setting)),
        *spec.arguments,
    ]


def environment(spec: RouterSpec, env_file: Mapping[str, str], environ: Mapping[str, str]) -> dict[str, str]:
    """Variables to add to `environ` for the router; `env_file` holds those of `spec.env_file`."""
    added = {name: value for name, value in env_file.items() if not environ.get(name)}
    added[FAIL_OPEN] = "1" if spec.fail == "open" else ""
    added[BACKGROUND] = "1" if spec.log else ""
    return added


def values(arguments: tuple[str, ...] | list[str], option: str, prefix: str = "") -> Iterator[str]:
    """The values given with an option (`--set X` or `--set=X`) that begin with `prefix`, without it."""
    for i, argument in enumerate(arguments):
        name, equals, value = argument.partition("=")
        if name == option and option.startswith("--") and equals:
            given = value
        elif argument == option and i + 1 < len(arguments):
            given = arguments[i + 1]
        else:
            continue
        if given.startswith(prefix):
            yield given.removeprefix(prefix)


class Detached(NamedTuple):
    """How `subprocess.Popen` starts a process that outlives its terminal."""

    start_new_session: bool
    creationflags: int


CREATE_NEW_PROCESS_GROUP, CREATE_NO_WINDOW = 0x00000200, 0x08000000


def detached(system: str) -> Detached:
    """`system` as `sys.platform` names it. On Windows: its own console, which is not shown, so that neither
    Ctrl-C nor the end of the terminal reaches it, and the commands that it runs show none either."""
    if system == "win32":
        return Detached(False, CREATE_NEW_PROCESS_GROUP | CREATE_NO_WINDOW)
    return Detached(True, 0)
