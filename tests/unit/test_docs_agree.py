"""The docs list exactly what the code has: messages, error codes, keys, queues, metrics, log events."""

import os
import re
import tomllib
from collections.abc import Iterable
from pathlib import Path
from types import ModuleType
from typing import Any

import msgspec
import pytest
from prometheus_client.metrics import MetricWrapperBase

import dispatcher.metrics
import schemas.gateway.metrics
import workers.metrics
from deploy.standin import NAMES
from schemas import config, gateway_config, messages, reports, topology
from schemas.errors import ConfigError
from workers.budget.course import MOVES
from workers.limits import cases, costs

ROOT = Path(__file__).resolve().parents[2]
PAGES = (ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md")))
DOCS = {path.name: path.read_text(encoding="utf-8") for path in PAGES}
FLEET_TOML = (ROOT / "deploy" / "fleet.toml").read_text(encoding="utf-8")
ROOMS = ("schemas", "dispatcher", "workers", "deploy", "tests")
SECTIONS: dict[str, type[msgspec.Struct]] = {
    "broker": config.BrokerConfig,
    "redis": config.RedisConfig,
    "dispatcher": config.DispatcherConfig,
    "worker": config.WorkerConfig,
    "gateway": gateway_config.GatewayConfig,
}
SERVICES = ("schemas", "dispatcher", "workers")
CODE = {file: file.read_text(encoding="utf-8") for name in SERVICES for file in (ROOT / name).rglob("*.py")}
EXAMPLES = [
    pytest.param(kind, body, id=f"{name}-{kind}-{number}")
    for name, text in DOCS.items()
    for number, (kind, body) in enumerate(re.findall(r"```json(?: (\w+))?\n(.*?)```", text, re.DOTALL))
]


def section(doc: str, heading: str) -> str:
    """The text under a heading, to the next one of its level."""
    found = re.search(rf"^{re.escape(heading)}\n(.*?)(?=^## |\Z)", DOCS[doc], re.DOTALL | re.MULTILINE)
    assert found, f"{doc} has no {heading!r}"
    return found[1]


def rows(text: str) -> list[list[str]]:
    """The cells of all tables in a text, less headings."""
    lines = [line for line in text.splitlines() if line.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    heads = {number - 1 for number, row in enumerate(cells) if set(row) == {"---"}}
    return [row for number, row in enumerate(cells) if number not in heads and set(row) != {"---"}]


def named(cells: Iterable[str]) -> list[str]:
    """All that stands in code marks."""
    return [name for cell in cells for name in re.findall(r"`([^`]+)`", cell)]


def plain(struct: msgspec.Struct) -> dict[str, Any]:
    """A Struct as TOML would give it."""
    fields: dict[str, Any] = msgspec.json.decode(msgspec.json.encode(struct))
    return fields


@pytest.mark.parametrize(("kind", "body"), EXAMPLES)
def test_json_examples_are_messages(kind: str, body: str) -> None:
    struct: Any = reports.Report if kind == "Report" else getattr(messages, kind or "Result")
    example: dict[str, Any] = msgspec.json.decode(body)
    decoded = msgspec.json.decode(body, type=struct)
    # A field that the Struct does not have would have been dropped.
    assert plain(decoded).items() >= example.items()


def test_error_codes() -> None:
    table = rows(section("messages.md", "## Error codes"))
    assert sorted(named(row[0] for row in table)) == sorted(messages.ErrorCode)


@pytest.mark.parametrize(
    ("heading", "struct"), [("## The request", messages.Request), ("## The result", messages.Result)]
)
def test_message_fields(heading: str, struct: type[msgspec.Struct]) -> None:
    wanted = [field.encode_name for field in msgspec.structs.fields(struct)]
    if struct is messages.Result:
        wanted += [field.encode_name for field in msgspec.structs.fields(messages.Try)]
    assert named(row[0] for row in rows(section("messages.md", heading))) == wanted


def test_sizes() -> None:
    text = section("messages.md", "## Sizes and encodings")
    assert f"{messages.BODY_LIMIT_BYTES // 1024} KiB" in text
    assert f"{messages.RESULT_LIMIT_BYTES // 1024**2} MiB" in text


@pytest.mark.parametrize("name", SECTIONS)
def test_configuration_keys_and_defaults(name: str) -> None:
    defaults = plain(SECTIONS[name]())
    assert tomllib.loads(FLEET_TOML)[name] == defaults
    documented = {
        key: tomllib.loads(f"value = {default.strip('`')}")["value"]
        for (key,), default in ((named(row[:1]), row[2]) for row in rows(section("configuration.md", f"## `[{name}]`")))
    }
    assert documented == defaults
    assert list(documented) == list(defaults)


def test_lane_keys_and_defaults() -> None:
    fields = plain(config.LaneConfig())
    table = rows(section("configuration.md", "## `[lanes.<name>]`"))
    assert [name for row in table for name in named(row[:1])] == list(fields)
    said: dict[str, Any] = {"`{}`": {}, "none": None}
    for (key,), default in ((named(row[:1]), row[2]) for row in table):
        value = said[default] if default in said else tomllib.loads(f"value = {default.strip('`')}")["value"]
        assert value == fields[key], key
    comments = " ".join(line for line in FLEET_TOML.splitlines() if line.startswith("#"))
    assert all(re.search(rf"\b{name}\b", comments) for name in fields)


def test_limits_keys_and_example(tmp_path: Path) -> None:
    text = section("configuration.md", "## `[limits.<exchange>]`")
    fields = [
        field
        for struct in (config.LimitsConfig, costs.Bucket, costs.Rule, cases.Case, cases.Bars)
        for field in msgspec.structs.fields(struct)
        if (struct, field.name) != (costs.Bucket, "name")
    ]
    assert [name for row in rows(text) for name in named(row[:1])] == [field.name for field in fields]
    (changed, whole) = re.findall(r"```toml\n(.*?)```", text, re.DOTALL)
    file = tmp_path / "fleet.toml"
    file.write_text(changed, encoding="utf-8")
    limits = config.load(file, {}).limits
    assert costs.load("bybit", 20, own=limits["bybit"]).buckets["ip"].amount == 2400
    [rule] = costs.load("coinbase", 20, own=limits["coinbase"]).rules["v3.public GET brokerage/market/products"]
    assert rule.cost == 2
    file.write_text(whole, encoding="utf-8")
    own = costs.load("bitso", 75, own=config.load(file, {}).limits["bitso"])
    assert own.knows(("public",), "GET", "ticker")
    # All that a bucket, a rule and a case may have stands there, but for what no parameter of Bitso is like.
    shown = set(re.findall(r"\b(\w+) = ", whole))
    assert {field.name for field in fields} - shown == {
        "buckets",
        "endpoints",
        "each",
        "bars",
        "since",
        "until",
        "bar",
        "most",
    }


def test_configuration_errors_read_as_the_docs_say(tmp_path: Path) -> None:
    pairs = re.findall(r"```toml\n((?:(?!```).)*)```\n\n```text\n(.*?)\n```", DOCS["configuration.md"], re.DOTALL)
    assert len(pairs) >= 5
    file = tmp_path / "fleet.toml"
    for toml, text in pairs:
        file.write_text(toml, encoding="utf-8")
        with pytest.raises(ConfigError) as caught:
            config.load(file, {})
        assert str(caught.value).replace(str(file), file.name) == text


def test_configuration_example_loads(tmp_path: Path) -> None:
    example = re.search(r"```toml\n(.*?)```", section("configuration.md", "## `[lanes.<name>]`"), re.DOTALL)
    assert example
    file = tmp_path / "fleet.toml"
    file.write_text(example[1], encoding="utf-8")
    assert len(config.load(file, {}).lanes) == 3


def test_the_names_that_the_shipped_configuration_leads_to() -> None:
    (told,) = re.findall(r"These names must be reachable.*?port 443", DOCS["operations.md"], re.DOTALL)
    assert re.findall(r"`(.*?)`", told) == list(NAMES)


def test_environment() -> None:
    table = rows(section("configuration.md", "## Environment"))
    read = set(re.findall(r'environment\.get\("(\w+)"\)', (ROOT / "schemas" / "config.py").read_text(encoding="utf-8")))
    assert {name for row in table for name in named(row[:1])} == read


def test_metrics() -> None:
    documented = [
        (*named(row[:1]), row[1], row[2].split(", ") if row[2] else [], row[3])
        for row in rows(section("operations.md", "## Metrics"))
    ]
    services = {"dispatcher": dispatcher.metrics, "worker": workers.metrics, "gateway": schemas.gateway.metrics}
    assert documented == [each for name, module in services.items() for each in _metrics(module, name)]


def _metrics(module: ModuleType, service: str) -> list[tuple[str, str, list[str], str]]:
    found: list[tuple[str, str, list[str], str]] = []
    for metric in vars(module).values():
        if isinstance(metric, MetricWrapperBase):
            (family,) = metric.describe()
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found.append((name, family.type, list(getattr(metric, "_labelnames")), service))  # noqa: B009
    return found


def test_queues() -> None:
    documented: dict[str, list[str]] = {}
    for row in rows(section("operations.md", "## Queues")):
        documented |= dict.fromkeys(named(row[:1]), row[2:4])
    queues = topology.queues(["<lane>"])
    assert sorted(documented) == sorted(queue.name for queue in queues)
    for queue in queues:
        most, stay = documented[queue.name]
        limit, ttl_ms = queue.arguments.get("x-max-length"), queue.arguments.get("x-message-ttl")
        size = int(queue.arguments.get("x-max-length-bytes", 0))
        told = f"{size // 2**30} GiB" if size >= 2**30 else f"{size // 2**20} MiB"
        assert most.removesuffix(" each") == (f"{limit:,}, {told}" if limit else ""), queue.name
        if stay != "as named":
            amount, _, unit = stay.partition(" ")
            assert (int(amount) * {"s": 1_000, "min": 60_000}[unit] if stay else None) == ttl_ms, queue.name


def test_log_events() -> None:
    logged: set[str] = set()
    for code in CODE.values():
        logged |= set(re.findall(r'(?<!`)\blog\.(?:info|warning|error|exception)\(\s*"(\w+)"', code))
    documented = {name for row in rows(section("operations.md", "## Logs")) for name in named(row[:1])}
    assert documented == logged


def test_log_events_are_looked_for_in_every_folder() -> None:
    folders = {Path(at) for name in SERVICES for at, _, files in os.walk(ROOT / name) if any(map(_is_code, files))}
    assert {file.parent for file in CODE} == folders


def _is_code(name: str) -> bool:
    return name.endswith(".py")


def test_the_budgets_diagram_is_the_code() -> None:
    diagrams = re.findall(r"```mermaid\nstateDiagram-v2\n(.*?)```", "".join(DOCS.values()), re.DOTALL)
    (moves,) = (found for text in diagrams if ("shared", "closed") in (found := re.findall(r"(\w+) --> (\w+):", text)))
    assert set(moves) == {(old.value, new.value) for old, news in MOVES.items() for new in news}


@pytest.mark.parametrize("name", DOCS)
def test_links_lead_somewhere(name: str) -> None:
    (folder,) = (page.parent for page in PAGES if page.name == name)
    for target in re.findall(r"\]\(([^)\s]+)\)", DOCS[name]):
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        file = folder / path if path else folder / name
        assert file.exists(), target
        if anchor:
            assert anchor in _anchors(file.read_text(encoding="utf-8")), target


def _anchors(text: str) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("name", ["CONTRIBUTING.md", "design.md", "budgets.md", "health.md", "decisions.md"])
def test_files_and_functions_exist(name: str) -> None:
    """Files are named from the root, or from the folder that begins a row; a function is in the file before it."""
    code = [path for folder in ROOMS for path in (ROOT / folder).rglob("*") if path.suffix in {".py", ".lua"}]
    for part in re.split(r"\n(?=[|\d-])|\n\n", re.sub(r"```.*?```", "", DOCS[name], flags=re.DOTALL)):
        folder = ROOT
        places = code
        for span in re.findall(r"`([^`\n]+)`", part):
            if re.fullmatch(r"[\w/]+/", span):
                assert (folder / span).is_dir(), span
                folder = ROOT / span if part.startswith(f"| `{span}`") else folder
            elif re.fullmatch(r"[\w/]+\.(py|lua|toml|json)", span):
                places = [folder / span]
                if "/" not in span and folder == ROOT:
                    places = [path for path in (ROOT / span, *code) if path.name == span and path.is_file()]
                assert places, span
                assert places[0].is_file(), span
            elif re.fullmatch(r"\w+\(\)", span):
                defined = re.compile(rf"\b(def |function |function run\.){re.escape(span[:-2])}\(")
                assert any(defined.search(place.read_text(encoding="utf-8")) for place in places), span


@pytest.mark.parametrize("name", DOCS)
def test_tests_exist(name: str) -> None:
    there = {path.name for path in (ROOT / "tests").rglob("test_*.py")}
    assert {test for _, test in re.findall(r"`([\w/]*/)?(test_\w+\.py)`", DOCS[name])} <= there
