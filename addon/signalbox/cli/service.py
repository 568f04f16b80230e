"""`signalbox service`: the router as a service of the user."""

import os
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Literal

import click
from dotenv import dotenv_values

from signalbox import places
from signalbox.claude.base_url import SettingsError, set_base_url, unset_base_url
from signalbox.claude.settings import config_folder
from signalbox.cli.options import default_rules, rules_option, state_option
from signalbox.cli.run import ListenType, end_router, environ_with, refuse
from signalbox.config.fields import Listen
from signalbox.config.load import RulesError, dotenv_files, read_text
from signalbox.lifecycle import running
from signalbox.lifecycle.arguments import modes
from signalbox.lifecycle.process import port_refusals
from signalbox.lifecycle.service import (
    Service,
    ServiceError,
    install,
    is_running,
    service_of,
    this_user,
    uninstall,
)
from signalbox.lifecycle.spec import LOG, RouterSpec
from signalbox.lifecycle.start import READY, wait_for
from signalbox.ports import authority, url_of

READ = ("CLAUDE_CONFIG_DIR", "LOG_LEVEL")
"""Variables that the router reads, whether the rules name them or not."""
PROXIES = ("HTTPS_PROXY", "HTTP_PROXY")
"""Variables that count in the environment alone."""
_VARIABLE = re.compile(r"(?<!\$)\$\{([A-Za-z_][A-Za-z0-9_]*)")
its_state = state_option("State folder of the router.")


@click.group("service")
def service_command() -> None:
    """The router as a service: it starts when you log in, and again after a crash.

    systemd (of the user) on Linux, launchd on macOS, the task scheduler on Windows.
    """


@service_command.command("install")
@click.option("--print", "only_print", is_flag=True, help="Show the file of the service and do nothing.")
@click.option(
    "--set-base-url",
    "sets_base_url",
    is_flag=True,
    help="Write ANTHROPIC_BASE_URL into Claude Code's settings.json; uninstall takes it out again.",
)
@click.option("--listen", type=ListenType(), multiple=True, help="As for `run`.")
@click.option(
    "--env",
    "env_file",
    type=click.Path(exists=True, dir_okay=False, resolve_path=True, path_type=Path),
    help="As for `run`.",
)
@click.option("--fail", "fails", type=click.Choice(["open", "closed"]), default="open", help="As for `run`.")
@rules_option
@its_state
def install_command(
    only_print: bool,
    sets_base_url: bool,
    listen: tuple[Listen, ...],
    env_file: Path | None,
    fails: Literal["open", "closed"],
    file: Path | None,
    state: Path,
) -> None:
    """Install the service and start it."""
    rules, state = (file or default_rules()).absolute(), state.absolute()
    spec = RouterSpec(
        modes=modes(listen, rules, state, environ_with(env_file)),
        rules=rules,
        state=state,
        script=places.ROUTER,
        env_file=env_file,
        listens_by_rules=not listen,
        fail=fails,
        log=LOG,
        service=True,
    )
    service = _service(tuple(_command(spec)))
    if only_print:
        click.echo(f"# {service.file}", err=True)
        encoding = "utf-16" if service.file.suffix == ".xml" else "utf-8"
        click.echo(service.content.decode(encoding))
        return
    _check(spec, service)
    for line in _unseen(spec, os.environ):
        click.echo(line, err=True)
    try:
        uninstall(service)
        install(service)
    except ServiceError as error:
        refuse(str(error))
    click.echo(f"installed: {service.file if service.is_kept else 'the task signalbox'}")
    health = wait_for(spec.listeners[0], READY)
    if health is None:
        refuse(f"the router does not answer within {READY:.0f} s: see signalbox logs")
    click.echo(f"the router runs: process {health.pid}, {_url(spec)}")
    if sets_base_url:
        _set_base_url(spec)


@service_command.command("uninstall")
@its_state
def uninstall_command(state: Path) -> None:
    """End the router and remove the service, and the base URL that was set with it."""
    try:
        settings = unset_base_url(state)
        if settings is not None:
            click.echo(f"ANTHROPIC_BASE_URL is as it was: {settings}")
        service = _service(())
        record = running.registered(state)
        if record is not None and record.spec.service and not service.ends_router:
            end_router(record.process)
        was_there = uninstall(service)
    except (ServiceError, SettingsError) as error:
        refuse(str(error))
    if was_there:
        click.echo("the service is removed")
        click.echo(f"The records and logs of the router stay in {state}.", err=True)
    else:
        click.echo("No service is installed.", err=True)


@service_command.command("status")
@its_state
def status_command(state: Path) -> None:
    """Say whether the service is installed and runs. Exit code 1 if it does not run."""
    service = _service(())
    if not (service.file.exists() if service.is_kept else is_running(service)):
        refuse("No service is installed. signalbox service install does it.")
    click.echo(f"installed: {service.file if service.is_kept else 'the task signalbox'}")
    record = running.registered(state)
    if not is_running(service) or record is None or not record.spec.service:
        refuse("it does not run: see signalbox logs")
    click.echo(f"it runs: process {record.process.pid}; signalbox status shows more")


def _command(spec: RouterSpec) -> Iterator[str]:
    """What the service runs."""
    yield from (sys.executable, "-m", "signalbox.cli", "run", "--service")
    yield from ("--rules", str(spec.rules), "--state", str(spec.state))
    if spec.env_file is not None:
        yield from ("--env", str(spec.env_file))
    if not spec.listens_by_rules:
        for one in spec.listeners:
            yield from ("--listen", authority(one.host, one.port))
    if spec.fail != "open":
        yield from ("--fail", spec.fail)


def _service(command: tuple[str, ...]) -> Service:
    try:
        return service_of(sys.platform, this_user(command))
    except ServiceError as error:
        refuse(str(error))


def _check(spec: RouterSpec, service: Service) -> None:
    """Ends the command where the service could not run."""
    record = running.registered(spec.state)
    if record is not None and not record.spec.service:
        refuse(f"a router of {spec.state} runs already: process {record.process.pid}: signalbox stop ends it")
    if record is None and (lines := list(port_refusals(spec))):
        refuse(*lines)
    if not spec.rules.exists():
        refuse(f"{spec.rules} does not exist: signalbox init writes one")


def _unseen(spec: RouterSpec, environ: Mapping[str, str]) -> Iterator[str]:
    """A line for each variable that is set in this shell only, where the service would miss it."""
    try:
        named = _VARIABLE.findall(read_text(spec.rules))
    except RulesError as error:
        yield from error.errors
        return
    sources = [*dotenv_files(spec.rules), *([spec.env_file] if spec.env_file is not None else [])]
    written = {name for file in sources if file.is_file() for name in dotenv_values(file, interpolate=False)}
    for name in sorted({*named, *READ, *PROXIES} - written):
        if environ.get(name):
            remedy = f"write it into {spec.rules.with_name('.env')} too"
            if name in PROXIES:
                remedy = "write it into a file for --env, or `proxy` into the rules"
            yield f"{name} is set in this shell only: {remedy}"


def _set_base_url(spec: RouterSpec) -> None:
    settings = config_folder(os.environ, Path.home()) / "settings.json"
    try:
        set_base_url(settings, _url(spec), spec.state)
    except SettingsError as error:
        refuse(str(error))
    click.echo(f"ANTHROPIC_BASE_URL is set: {settings}")


def _url(spec: RouterSpec) -> str:
    return url_of(spec.listeners[0].host, spec.listeners[0].port)
