"""What `signalbox run` makes of its arguments."""

import pytest

from signalbox.lifecycle.arguments import ArgumentError, Given, further, modes
from signalbox.state.good_rules import GoodRules

OWN = ("--detach", "--web", "--listen", "--env", "--replace", "--fail", "--rules", "--state")
DEFAULT = ("reverse:https://api.anthropic.com@127.0.0.1:8082",)


@pytest.mark.parametrize(
    ("arguments", "given"),
    [
        ([], Given(None, None, ())),
        (["my.yaml"], Given("my.yaml", None, ())),
        (["-q", "examples/glm.yml", "--anticache"], Given("examples/glm.yml", None, ("-q", "--anticache"))),
        (["--set", "router_rules=a.yaml"], Given("a.yaml", None, ())),
        (["--set=router_rules=a", "--set=x=1"], Given("a", None, ("--set=x=1",))),
        (["--set", "router_state=~/s", "--set", "x=1"], Given(None, "~/s", ("--set", "x=1"))),
        (["--web-port", "9000", "~m POST"], Given(None, None, ("--web-port", "9000", "~m POST"))),
        (["--listen-host", "::1"], Given(None, None, ("--listen-host", "::1"))),
    ],
)  # fmt: skip
def test_a_rules_file_is_one_and_all_else_is_mitmproxys(arguments, given):
    assert further(arguments, OWN) == given


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["a.yaml", "b.yaml"], "one rules file at a time: a.yaml and b.yaml are given"),
        (["a.yaml", "--set", "router_rules=b"], "one rules file at a time: a.yaml and b are given"),
        (["--set=router_state=a", "--set=router_state=b"], "one state folder at a time: a and b are given"),
        (
            ["port=8090"],
            "port=8090 is no argument of run: write --listen 127.0.0.1:8090, or just port=8090 run",
        ),
        (["8090"], "8090 is no argument of run: write --listen 127.0.0.1:8090, or just port=8090 run"),
        (
            ["my.yaml", "web_port=9000"],
            "web_port=9000 is no argument of run: write --web-port 9000, or just web_port=9000 run",
        ),
        (["--detatch"], "there is no option --detatch, did you mean --detach?"),
        (["--listn=[::1]:1"], "there is no option --listn=[::1]:1, did you mean --listen?"),
    ],
)
def test_a_wrong_argument_is_refused_with_the_right_one(arguments, words):
    with pytest.raises(ArgumentError) as caught:
        further(arguments, OWN)
    assert str(caught.value) == words


@pytest.fixture
def listening(tmp_path):
    """The modes with this text as the rules, and this one as those that were last good."""

    def listening(text: str, last_good: str | None = None, **environ: str) -> tuple[str, ...]:
        file = tmp_path / "rules.yaml"
        file.write_text(text)
        if last_good is not None:
            kept = GoodRules(tmp_path, file)
            kept.keep(last_good)
            kept.close()
        return modes((), file, tmp_path, environ)

    return listening


def test_listeners_are_those_of_the_rules_in_order(listening):
    assert listening("listen: {work: '127.0.0.1:8083', other: '[::1]:${PORT}'}\n", PORT="8084") == (
        "reverse:https://api.anthropic.com@127.0.0.1:8083",
        "reverse:https://api.anthropic.com@::1:8084",
    )


def test_without_any_the_listener_is_the_usual_one(listening):
    assert listening("") == DEFAULT
    assert listening("listen:\n") == DEFAULT


def test_a_fault_elsewhere_in_the_rules_changes_no_port(listening):
    assert listening("rulez: 1\nlisten: {a: '127.0.0.1:8083'}\n") == (
        "reverse:https://api.anthropic.com@127.0.0.1:8083",
    )


@pytest.mark.parametrize("text", ["listen: {a: nowhere}\n", "a: [", "listen: {a: '127.0.0.1:${PORT}'}\n"])
def test_where_they_cannot_be_read_those_that_were_last_good_count(listening, text):
    assert listening(text) == DEFAULT
    assert listening(text, "listen: {a: '127.0.0.1:8083'}\n") == (
        "reverse:https://api.anthropic.com@127.0.0.1:8083",
    )
