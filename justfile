set windows-shell := ["powershell.exe", "-NoLogo", "-Command"]

bin := if os_family() == "windows" { ".venv\\Scripts\\" } else { ".venv/bin/" }
python := if os_family() == "windows" { "python" } else { "python3" }
router := "-s addon/router.py --mode reverse:https://api.anthropic.com@127.0.0.1:8082"
schema := "addon/rules.schema.json"

# List the recipes
_default:
    @{{just_executable()}} --list --unsorted

# The router on 127.0.0.1:8082, before Anthropic; further arguments go to mitmdump
run *args: _env
    {{bin}}mitmdump {{router}} {{args}}

# The same with mitmweb, whose pages are on 127.0.0.1:8081
web *args: _env
    {{bin}}mitmweb {{router}} {{args}}

# The same as run, started anew whenever the code changes
dev *args: _env
    {{bin}}python -m signalbox.cli.dev {{bin}}mitmdump {{router}} {{args}}

# Fake providers, the router before them, a few requests: needs no key and no network
demo *args: _env
    {{bin}}signalbox demo {{args}}

# Tokens and times of the requests so far
stats *args: _env
    {{bin}}signalbox stats {{args}}

# All tests, several files at a time; with arguments those that pytest is told by them, one by one
test *args: _env
    {{bin}}pytest {{ if args == "" { "-n auto --dist loadfile --no-loadscope-reorder" } else { args } }}

# All that is checked without running: format, lint, types, the schema
check: _env && lint typecheck
    {{bin}}ruff format --check
    {{bin}}signalbox schema --check {{schema}}

# Style and the arrows between the rooms
lint: _env
    {{bin}}ruff check
    {{bin}}lint-imports

# Types
typecheck: _env
    {{bin}}mypy

# Format the code and mend what can be mended
fmt: _env
    {{bin}}ruff check --fix
    {{bin}}ruff format

# Renew the schema of rules.yaml
schema: _env
    {{bin}}signalbox schema --out {{schema}}

# Renew requirements.lock with the newest versions that pyproject.toml allows
lock:
    @{{python}} .ci/environment.py lock

_env:
    @{{python}} .ci/environment.py
