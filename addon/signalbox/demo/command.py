"""`signalbox demo`."""

import tempfile
from pathlib import Path

import click

from signalbox.demo.fake_providers import ChatProvider, FakeProvider
from signalbox.demo.output import Output
from signalbox.demo.process import RouterProcess
from signalbox.demo.scenario import ZAI_KEY, Fakes, Scenario, ScenarioError, write_rules

ANTHROPIC_SAYS = "Good evening from Anthropic: the points are set and the line is clear."
ANTHROPIC_COUNTS = {"input_tokens": 31, "output_tokens": 16}
ZAI_SAYS = "Good evening from Z.ai: a signal box sets the points, so every train finds its track."
ZAI_COUNTS = {"input_tokens": 24, "output_tokens": 21}
LOCAL_SAYS = "Good evening from this machine, in the words of another protocol."
LOCAL_COUNTS = {"prompt_tokens": 26, "completion_tokens": 13}


@click.command("demo")
@click.option(
    "--svg",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write the output to this file as a picture too.",
)
def demo_command(svg: Path | None) -> None:
    """Fake providers, the real router before them, and what becomes of a few requests."""
    output = Output(svg)
    with (
        tempfile.TemporaryDirectory(prefix="signalbox-demo-", ignore_cleanup_errors=True) as folder,
        FakeProvider(ANTHROPIC_SAYS, ANTHROPIC_COUNTS, reports="early") as anthropic,
        FakeProvider(ZAI_SAYS, ZAI_COUNTS, reports="late") as zai,
        ChatProvider(LOCAL_SAYS, LOCAL_COUNTS, reports="late") as local,
    ):
        router = RouterProcess(Path(folder), anthropic.url, {"ZAI_API_KEY": ZAI_KEY})
        fakes = Fakes(anthropic, zai, local)
        output.heading("Three fake providers on this machine, the real router before them, and these rules:")
        output.rules(write_rules(router, fakes, sonnet="zai/glm-4.7"))
        try:
            with router:
                Scenario(router, fakes, output).run()
        except (ScenarioError, OSError, ValueError) as error:
            raise click.ClickException(
                f"the demo failed: {error}\n\nThe router said:\n{router.log()}"
            ) from error
    output.heading("That was all. `just run` starts the router for real, with the rules in rules.yaml.")
    output.end()
