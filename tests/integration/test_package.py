"""What users install: one wheel with the contract alone, which needs nothing of the services."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
IMPORT_ALL = """
import json, pkgutil, sys
sys.path.insert(0, sys.argv[1])
import ccxt_fleet
names = [found.name for found in pkgutil.walk_packages(ccxt_fleet.__path__, "ccxt_fleet.")]
for name in names:
    __import__(name)
print(json.dumps({"names": names, "loaded": sorted({name.partition(".")[0] for name in sys.modules})}))
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder into which nothing but our wheel is installed, built from a copy and with no network."""
    folder = tmp_path_factory.mktemp("package")
    source = folder / "source"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "tests", "docs", "build", "dist", "*.egg-info")
    shutil.copytree(CHECKOUT, source, ignore=left_out)
    pip = [sys.executable, "-m", "pip", "--quiet", "--quiet", "--disable-pip-version-check"]
    offline = ["--no-index", "--no-deps", "--no-cache-dir"]
    run([*pip, "wheel", *offline, "--no-build-isolation", "--wheel-dir", str(folder), str(source)])
    (wheel,) = folder.glob("*.whl")
    run([*pip, "install", *offline, "--target", str(folder / "installed"), str(wheel)])
    return folder / "installed"


def run(argv: list[str]) -> str:
    done = subprocess.run(argv, cwd="/", capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_the_wheel_brings_one_name(installed: Path) -> None:
    names = {path.name for path in installed.iterdir() if path.suffix != ".dist-info"}
    assert names == {"ccxt_fleet"}


def test_the_wheel_is_typed_and_carries_the_schemas(installed: Path) -> None:
    package = installed / "ccxt_fleet"
    assert (package / "py.typed").exists()
    carried = {path.name for path in (package / "json").glob("*.json")}
    assert carried == {path.name for path in (CHECKOUT / "schemas" / "json").glob("*.json")}


def test_every_module_imports_without_what_the_services_need(installed: Path) -> None:
    found = json.loads(run([sys.executable, "-I", "-c", IMPORT_ALL, str(installed)]))
    assert "ccxt_fleet.messages" in found["names"]
    services = {"ccxt", "aiohttp", "prometheus_client", "tomli_w", "uvloop"}
    assert services.isdisjoint(found["loaded"])
    assert {"schemas", "dispatcher", "workers", "deploy"}.isdisjoint(found["loaded"])
