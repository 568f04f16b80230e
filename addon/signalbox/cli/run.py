"""`signalbox run`, and the commands about the router that runs: `status`, `stop`, `restart`, `logs`."""

import json
import os
import sys
import time
from collections.abc import Collection, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Literal, NoReturn

import click
import psutil
from msgspec.structs import replace

from signalbox import __version__, places
from signalbox.cli.options import default_rules, rules_option, state_option
from signalbox.config.fields import Listen, parse_listen
from signalbox.config.load import RulesError, load, read_text
from signalbox.lifecycle import log, running, service
from signalbox.lifecycle.arguments import ArgumentError, further, modes
from signalbox.lifecycle.process import RefusedError, port_refusals, serve, variables
from signalbox.lifecycle.running import Health, Record
from signalbox.lifecycle.spec import LOG, RouterSpec
from signalbox.lifecycle.start import StartedRouter, StartError, keep_running, start
from signalbox.ports import authority, is_free

FREED = 5.0
"""Seconds to wait until the port of a router that was ended is free."""
TIERS = ("haiku", "sonnet", "opus")
POLL = 0.2
"""Seconds between two looks at a log that is followed."""
_USAGE = {"ignore_unknown_options": True, "help_option_names": ["-h", "--help"]}

its_state = state_option("State folder of the router.")


class ListenType(click.ParamType[Listen]):
    name = "HOST:PORT"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Listen:
        try:
            return value if isinstance(value, Listen) else parse_listen(value)
        except ValueError:
            self.fail(f"expected HOST:PORT such as 127.0.0.1:8082, got {value!r}", param, ctx)


@click.command("run", context_settings=_USAGE)
@click.option("--detach", is_flag=True, help="Run in the background; returns when the router answers.")
@click.option("--web", is_flag=True, help="Run it in mitmweb, with pages on 127.0.0.1:8081.")
@click.option(
    "--listen",
    type=ListenType(),
    multiple=True,
    help="Where to listen; may be given several times. Default: `listen` in the rules, else 127.0.0.1:8082.",
)
@click.option(
    "--env",
    "env_file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="A file of NAME=VALUE lines; adds variables that the environment lacks.",
)
@click.option("--replace", "replaces", is_flag=True, help="End a router of ours that holds the port.")
@click.option(
    "--fail",
    type=click.Choice(["open", "closed"]),
    default="open",
    help="With broken rules at the start: use the last good ones, else pass all requests on (open, default); "
    "or end (closed).",
)
@rules_option
@state_option("State folder of the router.")
@click.option("--service", "is_service", is_flag=True, hidden=True, help="As the system's service runs it.")
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED, metavar="[RULES] [-- MITMPROXY ARGS]")
@click.pass_context
def run_command(
    context: click.Context,
    detach: bool,
    web: bool,
    listen: tuple[Listen, ...],
    env_file: Path | None,
    replaces: bool,
    fail: Literal["open", "closed"],
    file: Path | None,
    state: Path,
    is_service: bool,
    arguments: tuple[str, ...],
) -> None:
    """Run the router, in the foreground or in the background.

    Arguments that are not listed go to mitmdump, or with --web to mitmweb.
    """
    own = [option for param in context.command.params for option in param.opts if option.startswith("--")]
    try:
        given = further(arguments, own)
        if given.rules is not None and file is not None:
            raise ArgumentError(f"one rules file at a time: {file} and {given.rules} are given")
    except ArgumentError as error:
        raise click.UsageError(str(error)) from None
    state = Path(given.state).expanduser() if given.state is not None else state
    rules = Path(given.rules).expanduser() if given.rules is not None else file or default_rules()
    rules, state = rules.absolute(), state.absolute()
    if not is_service and not rules.exists():
        try:
            read_text(rules)
        except RulesError as error:
            refuse(*error.errors)
    spec = RouterSpec(
        modes=modes(listen, rules, state, environ_with(env_file)),
        rules=rules,
        state=state,
        script=places.ROUTER,
        program="mitmweb" if web else "mitmdump",
        arguments=given.rest,
        env_file=env_file.absolute() if env_file is not None else None,
        listens_by_rules=not listen,
        fail=fail,
        log=LOG if detach or is_service else "",
        service=is_service,
    )
    before = _make_room(spec) if replaces else None
    if detach:
        _tell(_started(spec, before))
        return
    if is_service and sys.platform == "win32":
        keep_running(spec)
        return
    try:
        raise SystemExit(serve(spec))
    except RefusedError as error:
        refuse(*error.lines, *_again(before))


def environ_with(env_file: Path | None) -> dict[str, str]:
    """The environment, with the variables of a file that it lacks."""
    try:
        return {**variables(env_file), **os.environ}
    except RefusedError as error:
        refuse(*error.lines)


def _started(spec: RouterSpec, before: RouterSpec | None = None) -> StartedRouter:
    """Ends the command where the router does not start, after the one that ran before has been started."""
    try:
        return start(spec)
    except StartError as error:
        refuse(*error.lines, *_again(before))


def _again(before: RouterSpec | None) -> tuple[str, ...]:
    """Starts the router that was ended for one that does not start; gives lines for people."""
    if before is None:
        return ()
    try:
        router = start(before)
    except StartError as error:
        return "the router that ran before does not start again either:", *error.lines
    return (f"the router that ran before was started again: process {router.identity.pid}",)


def _check(spec: RouterSpec, ending: Collection[int]) -> None:
    """Ends the command where it is certain that the router would not start once the processes of these ids
    have ended."""
    if lines := tuple(port_refusals(spec, ending)):
        refuse(*lines)
    if spec.fail == "closed":
        try:
            load(spec.rules, environ_with(spec.env_file))
        except RulesError as error:
            refuse(*error.errors)


def _tell(router: StartedRouter) -> None:
    for line in router.lines:
        click.echo(line)
    click.echo(f"the router runs in the background: process {router.identity.pid}")


def _make_room(spec: RouterSpec) -> RouterSpec | None:
    """Ends the routers of ours that hold the ports and, for one in the background, the state folder.

    Gives the spec of the one of the state folder if it was among them and can be started again from here.
    """
    try:
        found = [running.identity_at(listen.host, listen.port) for listen in spec.listeners]
    except running.NotOursError as error:
        refuse(f"{error}: --replace ends routers of ours only")
    record = running.registered(spec.state)
    if spec.log and record is not None:
        found.append(record.process)
    ending = {one for one in found if one is not None}
    if ending:
        _check(spec, [one.pid for one in ending])
    for process in ending:
        end_router(process)
    ends = time.monotonic() + FREED
    while time.monotonic() < ends and not all(is_free(one.port, one.host) for one in spec.listeners):
        time.sleep(POLL / 4)
    is_kept = record is not None and record.process in ending and record.spec.log and not record.spec.service
    return record.spec if record is not None and is_kept else None


def end_router(process: running.ProcessIdentity) -> None:
    try:
        ended = running.end(process)
    except psutil.AccessDenied:
        refuse(f"process {process.pid} belongs to another user")
    if ended is not None and ended.gently:
        click.echo(f"the router has ended: process {process.pid}", err=True)
    elif ended is not None:
        late = f"the router did not end within {running.END:.0f} s"
        click.echo(f"{late} and was killed: process {process.pid}", err=True)


# the router that runs


@click.command("status")
@click.option("--json", "as_json", is_flag=True, help="As one JSON object.")
@its_state
def status_command(as_json: bool, state: Path) -> None:
    """Show the router that runs on the state folder. Exit code 1 if none does."""
    record = _registered(state)
    listen = record.spec.listeners[0]
    shown = _shown(record, running.running(listen.host, listen.port))
    click.echo(json.dumps(shown, indent=2) if as_json else "\n".join(_status_lines(shown)))
    if shown["status"] is None:
        refuse(f"the router does not answer on http://{authority(listen.host, listen.port)}")


def _shown(record: Record, health: Health | None) -> dict[str, Any]:
    """What `status` shows. Of a router that does not answer: what it was started with."""
    spec = record.spec
    base: dict[str, Any] = {
        "pid": record.process.pid,
        "version": record.version,
        "started": datetime.fromtimestamp(record.process.created).astimezone().isoformat(timespec="seconds"),
        "background": bool(spec.log),
        "service": spec.service,
        "state": str(spec.state),
        "status": None,
        "listeners": [{"host": one.host, "port": one.port} for one in spec.listeners],
        "rules": {"file": str(spec.rules)},
        "tiers": {},
        "providers": {},
    }
    if health is None or health.pid != record.process.pid:
        return base
    listeners = [{"host": one.host, "port": one.port, "mode": one.mode} for one in health.listeners]
    rules = health.rules
    return base | {
        "version": health.version,
        "status": health.status,
        "listeners": listeners,
        "rules": {
            "file": rules.file, "loaded_at": rules.loaded_at, "error": rules.error, "source": rules.source,
        },
        "tiers": {tier: _tier(health, tier, spec) for tier in TIERS if tier in health.tiers},
        "providers": health.providers,
    }  # fmt: skip


def _tier(health: Health, tier: str, spec: RouterSpec) -> dict[str, Any]:
    """Model, provider and URL; the upstream's where no rule takes the tier."""
    shown = health.tiers[tier]
    provider = shown.get("provider")
    mode = spec.modes[0].partition("@")[0]
    upstream = mode.partition(":")[2] if mode.startswith("reverse:") else None
    url = health.providers.get(provider, {}).get("url") if provider is not None else upstream
    return {"model": shown.get("model"), "provider": provider, "url": url}


def _status_lines(shown: dict[str, Any]) -> Iterator[str]:
    where = "service" if shown["service"] else "background" if shown["background"] else "foreground"
    yield f"signalbox {shown['version']}, process {shown['pid']}, {where}, since {shown['started']}"
    if shown["version"] != __version__:
        yield f"this command is version {__version__}: signalbox restart starts that"
    yield f"status     {shown['status'] or 'does not answer'}"
    for one in shown["listeners"]:
        mode = one.get("mode", "").partition("@")[0]
        yield f"listener   http://{authority(one['host'], one['port'])}" + (f"  {mode}" if mode else "")
    rules = shown["rules"]
    yield f"rules      {rules['file']}"
    if rules.get("error"):
        yield f"           {rules['error']}"
        yield f"           in force: {SOURCES.get(rules['source'], rules['source'])}"
    rows = [
        (f"{tier:9}", one["model"] or "-", one["provider"] or "no rule", one["url"] or "-")
        for tier, one in shown["tiers"].items()
    ]
    widths = [max((len(row[i]) for row in rows), default=0) for i in range(4)]
    for row in rows:
        yield "  ".join(text.ljust(width) for text, width in zip(row, widths, strict=True)).rstrip()
    for name, one in shown["providers"].items():
        state = "available" if one.get("available") else f"unavailable: {one.get('reason')}"
        circuit = one.get("circuit", "closed")
        yield f"provider   {name}: {state}" + (f", circuit {circuit}" if circuit != "closed" else "")


SOURCES = {
    "file": "the rules before the last edit",
    "last-good": "the rules that were last good",
    "fail-open": "no rules: requests pass on unrouted",
}


@click.command("stop")
@its_state
def stop_command(state: Path) -> None:
    """End the router that runs on the state folder, and wait until it has ended."""
    record = running.registered(state)
    if record is None:
        click.echo(f"No router runs on {state}.", err=True)
        return
    end_router(record.process)


@click.command("restart")
@its_state
def restart_command_(state: Path) -> None:
    """End the router in the background and start it again with the same arguments."""
    record = _registered(state)
    spec = record.spec
    if spec.service:
        try:
            its_service = service.service_of(sys.platform, service.this_user(()))
            if not its_service.ends_router:
                end_router(record.process)
            service.run(its_service.restart)
        except service.ServiceError as error:
            refuse(str(error))
        click.echo("the service was restarted")
        return
    if not spec.log:
        refuse(f"process {record.process.pid} runs in the foreground of a terminal: end it there")
    if spec.listens_by_rules:
        by_rules = modes((), spec.rules, spec.state, environ_with(spec.env_file))
        spec = replace(spec, modes=by_rules)
    _check(spec, [record.process.pid])
    end_router(record.process)
    _tell(_started(spec, record.spec))


@click.command("logs")
@click.option("-f", "follows", is_flag=True, help="Go on with what comes, until Ctrl-C.")
@click.option("--clean", is_flag=True, help="Delete the logs.")
@its_state
def logs_command(follows: bool, clean: bool, state: Path) -> None:
    """Print the log of routers in the background."""
    if clean:
        for path in log.clean(state, in_use=running.registered(state) is not None):
            click.echo(f"deleted: {path}")
        return
    found = log.files(state)
    if not found and not follows:
        refuse(f"No router has run in the background on {state}.")
    with suppress(KeyboardInterrupt):
        for path in found:
            click.echo(path.read_bytes().decode("utf-8", "replace"), nl=False)
        if follows:
            for text in log.follow(state / LOG, pause=lambda: time.sleep(POLL)):
                click.echo(text, nl=False)


def _registered(state: Path) -> Record:
    record = running.registered(state)
    if record is None:
        refuse(f"No router runs on {state}. signalbox run --detach starts one.")
    return record


def refuse(*lines: str) -> NoReturn:
    for line in lines:
        click.echo(line, err=True)
    raise SystemExit(1)
