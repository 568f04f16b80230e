"""examples/compose.yaml: it is valid, and all that it names is there. `slow/test_many_machines.py` runs its
parts.
"""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from signalbox.cli.check import check
from signalbox.config.load import load
from signalbox.database import ledger_url, shown_url
from tests.support.compose import validate
from tests.support.router_process import ROOT

FILE = ROOT / "examples" / "compose.yaml"
PARTS = FILE.parent / "many-machines"
TEXT = FILE.read_text(encoding="utf-8")
COMPOSE: dict[str, Any] = yaml.safe_load(TEXT)
SERVICES: dict[str, Any] = COMPOSE["services"]
ROUTERS = [name for name, service in SERVICES.items() if service.get("image") == "signalbox"]
ENVIRONMENT = {
    "CLIENT_TEAM": "team-secret-for-tests",
    "TEAM_ANTHROPIC_KEY": "sk-ant-fake-team",
    "TEAM_ZAI_KEY": "zai-key-for-tests",
    "LEDGER_URL": "postgresql+psycopg://signalbox:a-password-for-tests@postgres:5432/signalbox",
}


def test_it_is_what_the_compose_specification_allows():
    validate(TEXT)
    with pytest.raises(ValueError, match="portz"):
        validate(TEXT.replace("ports:", "portz:", 1))


def test_there_are_three_routers_each_with_a_state_folder_of_its_own():
    assert ROUTERS == ["router1", "router2", "router3"]
    for name in ROUTERS:
        assert f"{name}:/var/lib/signalbox" in SERVICES[name]["volumes"]


def test_every_file_and_volume_that_is_mounted_is_there():
    for service in SERVICES.values():
        for source in (volume.split(":")[0] for volume in service.get("volumes", ())):
            if source.startswith("."):
                assert (FILE.parent / source).exists(), source
            else:
                assert source in COMPOSE["volumes"], source


def test_every_variable_is_in_the_file_of_variables():
    named = set(re.findall(r"\$\{(\w+)", TEXT)) | {
        secret["environment"] for secret in COMPOSE["secrets"].values()
    }
    lines = (PARTS / "env.example").read_text(encoding="utf-8").splitlines()
    assert {line.rstrip("=") for line in lines if not line.startswith("#")} == named


def test_only_the_proxy_can_be_reached_from_other_machines():
    ports = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert ports.pop("haproxy") == ["8082:8082"]
    assert all(port.startswith("127.0.0.1:") for given in ports.values() for port in given)


def test_all_routers_have_one_rules_file_that_is_without_fault():
    file = PARTS / "rules" / "rules.yaml"
    assert check(file, ENVIRONMENT) == ([], [])
    rules = load(file, ENVIRONMENT)
    assert rules.ledger.shared_url is not None
    assert shown_url(ledger_url(Path(), rules.ledger)) == "PostgreSQL signalbox at postgres:5432"
    assert set(re.findall(r"\$\{(\w+)", file.read_text(encoding="utf-8"))) == set(
        SERVICES["router1"]["environment"]
    )


def test_the_proxy_and_prometheus_ask_all_routers():
    proxy = (PARTS / "haproxy.cfg").read_text(encoding="utf-8")
    asked = [f"{name}:8082" for name in ROUTERS]
    assert re.findall(r"^ *server \S+ (\S+)$", proxy, re.MULTILINE) == asked
    (scraped,) = yaml.safe_load((PARTS / "prometheus.yaml").read_text(encoding="utf-8"))["scrape_configs"]
    assert scraped["static_configs"] == [{"targets": asked}]


# the failover chain with its own database

FAILOVER = ROOT / "examples" / "failover-postgres"
FAILOVER_TEXT = (FAILOVER / "compose.yaml").read_text(encoding="utf-8")
FAILOVER_SERVICES: dict[str, Any] = yaml.safe_load(FAILOVER_TEXT)["services"]


def test_the_chain_with_a_database_is_what_the_compose_specification_allows():
    validate(FAILOVER_TEXT)
    assert FAILOVER_SERVICES.keys() == {"router", "postgres", "adminer"}


def test_what_the_chain_mounts_is_there_and_its_ports_are_open_on_this_machine_alone():
    for service in FAILOVER_SERVICES.values():
        for source in (volume.split(":")[0] for volume in service.get("volumes", ())):
            assert (FAILOVER / source).is_dir() or source in yaml.safe_load(FAILOVER_TEXT)["volumes"]
        assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


def test_every_variable_of_the_chain_is_in_its_file_of_variables():
    lines = (FAILOVER / "env.example").read_text(encoding="utf-8").splitlines()
    named = {line.rstrip("=") for line in lines if not line.startswith("#")}
    assert named == set(re.findall(r"\$\{(\w+)", FAILOVER_TEXT))


def test_the_rules_of_the_chain_are_without_fault_and_need_what_the_router_is_given():
    file = FAILOVER / "rules" / "rules.yaml"
    given = FAILOVER_SERVICES["router"]["environment"]
    environment = dict.fromkeys(given, "text-for-tests") | {"LEDGER_URL": ENVIRONMENT["LEDGER_URL"]}
    assert check(file, environment) == ([], [])
    assert set(re.findall(r"\$\{(\w+)", file.read_text(encoding="utf-8"))) == set(given)


def test_the_readme_of_the_chain_names_its_database_and_user():
    text = (FAILOVER / "README.md").read_text(encoding="utf-8")
    database = FAILOVER_SERVICES["postgres"]["environment"]
    assert f"--username={database['POSTGRES_USER']} --dbname={database['POSTGRES_DB']}" in text
