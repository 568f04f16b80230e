"""Checks of the machine: ports, mitmproxy's certificate, clock, disk, permissions."""

import os
import shutil
import stat
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cryptography import x509

from signalbox import __version__, ports
from signalbox.claude.certificates import CA, CA_KEY, authority_folder
from signalbox.config.load import dotenv_files
from signalbox.doctor.findings import Finding, Situation, State
from signalbox.lifecycle.running import Health

GB = 1024**3
LITTLE, TOO_LITTLE = GB, GB // 10
"""Bytes of free space below which it is told, and below which records may be lost."""
SOON = timedelta(days=30)
EARLIEST = datetime(2026, 1, 1, tzinfo=UTC).timestamp()
"""This version is younger than that."""
AHEAD = 120.0
"""Seconds that a file may lie in the future: clocks of network disks differ."""
SET_CLOCK = "set the clock: certificates, logins and resets of quota depend on it"
UNHEALTHY = "signalbox status names them"


def port(situation: Situation) -> Iterator[Finding]:
    for listen in situation.listeners:
        where = f"{listen.host}:{listen.port}"
        if (health := situation.running.get(listen)) is not None:
            yield from _running(situation, where, health)
        elif ports.is_free(listen.port, listen.host):
            yield Finding("port", "ok", f"{where} is free; no router runs there")
        else:
            remedy = "end it, or give this router another address in `listen` of the rules"
            yield Finding("port", "fail", f"{where}: {ports.taken(listen.port)}, which is no router", remedy)


def _running(situation: Situation, where: str, health: Health) -> Iterator[Finding]:
    what = f"a router answers at {where}, version {health.version}, process {health.pid}"
    if health.version != __version__:
        yield Finding("port", "warn", f"{what}; this is version {__version__}", "signalbox restart")
    elif Path(health.rules.file).absolute() != situation.rules_file.absolute():
        remedy = f"name the rules: signalbox doctor --rules {health.rules.file}"
        yield Finding("port", "warn", f"{what}, with other rules: {health.rules.file}", remedy)
    else:
        yield Finding("port", "ok", what)
    if health.rules.source != "file" or health.rules.error:
        which = {"last-good": "the rules that were last good", "fail-open": "no rules at all"}
        used = which.get(health.rules.source, "the rules of before the last edit")
        message = f"the router at {where} uses {used}: {health.rules.error or 'its file has errors'}"
        yield Finding("port", "fail", message, "mend that line; a saved edit applies at once")
    elif health.status == "unhealthy":
        message = f"the router at {where} is unhealthy: some rule has no provider that can be asked"
        yield Finding("port", "warn", message, UNHEALTHY)


def ca(situation: Situation) -> Iterator[Finding]:
    folder = authority_folder(situation.home, situation.state)
    certificate, key = folder / CA, folder / CA_KEY
    anew = f"delete {folder / 'mitmproxy-*'}: the next start makes a new one"
    if not certificate.exists():
        yield Finding("ca", "ok", "there is no certificate yet; the first start makes one")
        return
    try:
        ends = x509.load_pem_x509_certificate(certificate.read_bytes()).not_valid_after_utc
    except (OSError, ValueError) as error:
        yield Finding("ca", "fail", f"{certificate} cannot be read: {type(error).__name__}", anew)
        return
    left = ends - datetime.now(UTC)
    if left < timedelta():
        yield Finding("ca", "fail", f"{certificate} has expired on {ends:%Y-%m-%d}", anew)
    elif left < SOON:
        yield Finding("ca", "warn", f"{certificate} expires on {ends:%Y-%m-%d}", anew)
    else:
        yield Finding("ca", "ok", f"{certificate} is good until {ends:%Y-%m-%d}")
    if situation.platform != "win32" and key.exists() and _open_to_others(key):
        message = f"{key}, with which certificates are signed, can be read by others"
        yield Finding("ca", "fail", message, f"chmod 600 {key}")


def clock(situation: Situation) -> Iterator[Finding]:
    now = time.time()
    newest = max((_modified(file) for file in _files(situation.state)), default=0.0)
    if now < EARLIEST:
        message = f"the clock says {datetime.fromtimestamp(now, UTC):%Y-%m-%d}"
        yield Finding("clock", "fail", message, SET_CLOCK)
    elif newest > now + AHEAD:
        hours = (newest - now) / 3600
        message = f"files in {situation.state} are from {hours:.1f} hours ahead: the clock was set back"
        yield Finding("clock", "warn", message, SET_CLOCK)
    else:
        local = datetime.now().astimezone()
        yield Finding("clock", "ok", f"{local:%Y-%m-%d %H:%M:%S %Z}")


def disk(situation: Situation) -> Iterator[Finding]:
    place = _existing(situation.state)
    try:
        free = shutil.disk_usage(place).free
    except OSError as error:
        yield Finding(
            "disk", "fail", f"{place} cannot be looked at: {error.strerror}", "mount or mend that disk"
        )
        return
    message = f"{free / GB:.1f} GB are free at {place}"
    remedy = "make room, or keep less: `ledger: {keep: 90d}`, `log: {keep: 1d}`"
    state: State = "fail" if free < TOO_LITTLE else "warn" if free < LITTLE else "ok"
    yield Finding("disk", state, message, "" if state == "ok" else remedy)


def permissions(situation: Situation) -> Iterator[Finding]:
    """Who may read what holds keys and records."""
    found = list(_permissions(situation))
    message = f"{situation.state} can be written, and other users cannot read it"
    yield from found or [Finding("permissions", "ok", message)]


def _permissions(situation: Situation) -> Iterator[Finding]:
    state, place = situation.state, _existing(situation.state)
    if not os.access(place, os.W_OK | os.X_OK):
        message = f"{place} cannot be written to, so nothing is recorded or learned"
        yield Finding("permissions", "fail", message, f"chown it, or name another with --state: {place}")
    if situation.platform == "win32":
        return
    if state.exists() and _open_to_others(state):
        message = f"others may look into {state}, where sessions and costs are recorded"
        yield Finding("permissions", "warn", message, f"chmod 700 {state}")
    secrets = [file for file in situation.rules.reads if file.exists()]
    secrets += [file for file in dotenv_files(situation.rules_file) if file.exists()]
    for file in dict.fromkeys(secrets):
        if _open_to_others(file):
            yield Finding(
                "permissions", "warn", f"others may read {file}, which holds keys", f"chmod 600 {file}"
            )


def _open_to_others(path: Path) -> bool:
    return bool(path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO))


def _existing(path: Path) -> Path:
    """The folder, or the nearest above it that exists."""
    return next((one for one in (path, *path.parents) if one.exists()), path)


def _files(folder: Path) -> list[Path]:
    try:
        return [file for file in folder.iterdir() if file.is_file()]
    except OSError:
        return []


def _modified(file: Path) -> float:
    try:
        return file.stat().st_mtime
    except OSError:
        return 0.0
