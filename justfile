set windows-shell := ["powershell.exe", "-NoLogo", "-Command"]

# Other ports: just port=8090 web_port=8091 web
port := ""
web_port := "8081"

bin := if os_family() == "windows" { ".venv\\Scripts\\" } else { ".venv/bin/" }
python := if os_family() == "windows" { "python" } else { "python3" }
listen := if port == "" { "" } else { "--listen 127.0.0.1:" + port }
schema := "addon/rules.schema.json"
parallel := "-n auto --dist loadfile --no-loadscope-reorder"

# List the recipes
_default:
    @{{just_executable()}} --list --unsorted

# Start the router on 127.0.0.1:8082, upstream Anthropic: just run, just run my.yaml, just port=8090 run
[no-exit-message]
run *args: _env
    @{{bin}}signalbox run {{listen}} {{args}}

# The same in mitmweb, with its pages on 127.0.0.1:8081
[no-exit-message]
web *args: _env
    @{{bin}}signalbox run --web {{listen}} --web-port {{web_port}} {{args}}

# The same as run, restarted when the code changes
[no-exit-message]
dev *args: _env
    @{{bin}}watchfiles --filter python "{{bin}}signalbox run {{listen}} {{args}}" addon

# A few requests through the router to fake providers: needs no key and no network
[no-exit-message]
demo *args: _env
    @{{bin}}signalbox demo {{args}}

# The command line: just signalbox check, just signalbox explain claude-haiku-4-5
[no-exit-message]
signalbox *args: _env
    @{{bin}}signalbox {{args}}

# Tokens, cost and latency of the recorded requests
[no-exit-message]
stats *args: _env
    @{{bin}}signalbox stats {{args}}

# The tests without the slow ones, with few examples of properties; or pytest with these arguments
test *args: _env
    {{bin}}pytest {{ if args == "" { parallel + ' -m "not slow" --hypothesis-profile=quick' } else { args } }}

# All tests, the slow ones too; root on Debian gets the browser, the database and the proxy that they use
test-all: _env
    @{{python}} .ci/environment.py system
    {{bin}}pytest {{parallel}}

# The real Claude Code, from npm, through the router, where it can reach nothing but this machine
test-claude *args: _env
    {{bin}}python -m tests.support.claude_code {{bin}}pytest --timeout 240 tests/claude {{args}}

# Time and processor time beside bare mitmdump and going there directly; with --short in about a minute
bench *args: _env
    {{bin}}python -m tests.bench {{args}}

# The short benchmark, which fails where the router is slower than tests/bench/budget.json allows
budget: _env
    {{bin}}python -m tests.bench --short --check

# What of each request's beginning a provider can read from its cache behind the router
bench-caches *args: _env
    {{bin}}python -m tests.bench.caches {{args}}

# All that is checked without running: format, lint, types, the schema, the page of commands
check: _env && lint typecheck
    {{bin}}ruff format --check
    {{bin}}signalbox schema --check {{schema}}
    {{bin}}python .ci/commands.py --check

# Lint, and which package may import which
lint: _env
    {{bin}}ruff check
    {{bin}}lint-imports

# Types
typecheck: _env
    {{bin}}mypy

# Format the code and fix what ruff can fix
fmt: _env
    {{bin}}ruff check --fix
    {{bin}}ruff format

# Update the JSON Schema of rules.yaml
schema: _env
    {{bin}}signalbox schema --out {{schema}}

# Make the wheel in dist/, for pipx or uv tool install
build: _env
    @{{python}} .ci/environment.py build

# Update docs/commands.md
docs: _env
    {{bin}}python .ci/commands.py

# Update requirements.lock and requirements-runtime.lock to the newest versions that pyproject.toml allows
lock:
    @{{python}} .ci/environment.py lock

_env:
    @{{python}} .ci/environment.py
