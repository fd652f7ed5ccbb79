"""What another program needs: the contract's modules import nothing but msgspec and what a connection needs."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from schemas.version import VERSION

ROOT = Path(__file__).resolve().parents[2]
CONTRACT = sorted(path.stem for path in (ROOT / "schemas").glob("*.py") if not path.stem.startswith("__"))
CONNECTED = ("client.fleet", "client.blocking", "runtime.amqp.link", "runtime.broker")
SERVICES = ("redis", "typer", "rich", "ccxt", "aiohttp", "prometheus_client", "uvloop", "tomli_w", "hiredis")
# A fresh interpreter, in which what the services need is as good as not installed.
IMPORT = """
import sys
for name in sys.argv[2].split(","):
    sys.modules[name] = None
__import__(sys.argv[1])
"""


@pytest.mark.parametrize("module", [*CONTRACT, *CONNECTED])
def test_it_imports_without_what_the_services_need(module: str) -> None:
    argv = [sys.executable, "-c", IMPORT, f"schemas.{module}", ",".join(SERVICES)]
    done = subprocess.run(argv, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_version_is_the_one_of_the_package() -> None:
    assert tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"] == VERSION
