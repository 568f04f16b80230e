"""examples/failover-postgres with a real PostgreSQL: its rules, and the commands of its README."""

import re
import subprocess

import psycopg
import pytest

from tests.slow.test_examples import HAIKU, KEYS, ask, asked, by_path, rules_of
from tests.support.postgres import Postgres, programs
from tests.support.router_process import ROOT, wait_until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(120)]

README = (ROOT / "examples/failover-postgres/README.md").read_text(encoding="utf-8")
IN_CONTAINER = "docker compose exec -T postgres "


@pytest.fixture(scope="module")
def postgres():
    if programs() is None:
        pytest.skip("PostgreSQL is not installed")
    with Postgres() as server:
        yield server


def command(name: str, database: str) -> str:
    """A line of README as it runs here, in the container's place."""
    (line,) = re.findall(rf"^{re.escape(IN_CONTAINER)}({name} .*)$", README, re.MULTILINE)
    there = line.replace("--username=signalbox ", "").replace("--dbname=signalbox", f"--dbname={database}")
    return f"{programs()}/{there.replace('custom signalbox', f'custom {database}')}"


def test_the_database_is_backed_up_beside_the_router_and_restored(postgres, start_router, upstream, tmp_path):
    url = postgres.new_database()
    database = url.replace("+psycopg", "")
    upstream.answer(by_path)
    router = start_router(
        upstream.url,
        rules=rules_of("failover-postgres/rules/rules.yaml", upstream),
        environment={**KEYS, "LEDGER_URL": url},
    )
    secret = {"x_signalbox_client": KEYS["CLIENT_SECRET"]}

    def rows() -> int:
        with psycopg.connect(database) as connection:
            (count,) = connection.execute("SELECT count(*) FROM attempts").fetchone() or (0,)
            return int(count)

    assert ask(router, HAIKU, **secret).status == 200
    assert asked(upstream)[0].host == "api.anthropic.com"
    wait_until(lambda: rows() == 1, 10, router.log)
    subprocess.run(["bash", "-c", command("pg_dump", database)], cwd=tmp_path, check=True, timeout=60)
    for _ in range(2):
        ask(router, HAIKU, **secret)
    wait_until(lambda: rows() == 3, 10, router.log)
    router.stop()
    subprocess.run(["bash", "-c", command("pg_restore", database)], cwd=tmp_path, check=True, timeout=60)
    assert rows() == 1
