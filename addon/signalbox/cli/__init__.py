"""The command line, `signalbox`.

Nothing is imported before it is known what is called: a status line has 300 ms for all that it does, and
click alone takes a third of them.
"""

import sys

COMMANDS = {
    "check": "signalbox.cli.check:check_command",
    "claude": "signalbox.cli.claude:claude_command",
    "demo": "signalbox.demo.command:demo_command",
    "doctor": "signalbox.cli.doctor:doctor_command",
    "env": "signalbox.cli.env:env_command",
    "explain": "signalbox.cli.explain:explain_command",
    "init": "signalbox.cli.init:init_command",
    "learned": "signalbox.cli.commands:learned_command",
    "logs": "signalbox.cli.run:logs_command",
    "picker": "signalbox.cli.commands:picker_command",
    "restart": "signalbox.cli.run:restart_command_",
    "run": "signalbox.cli.run:run_command",
    "schema": "signalbox.cli.commands:schema_command",
    "stats": "signalbox.cli.stats:stats_command",
    "service": "signalbox.cli.service:service_command",
    "status": "signalbox.cli.run:status_command",
    "statusline": "signalbox.cli.commands:statusline_command",
    "stop": "signalbox.cli.run:stop_command",
    "test": "signalbox.cli.test:test_command",
    "addon-path": "signalbox.cli.commands:addon_path_command",
}


def main() -> None:
    if sys.stdout is not None and sys.stdout.errors == "strict":  # as that of a pipe on Windows
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]  # it is a TextIOWrapper
    if sys.argv[1:] == ["statusline"]:
        from signalbox.cli.statusline import print_status_line

        print_status_line()
    from signalbox.cli.group import signalbox_command

    signalbox_command(prog_name="signalbox")
