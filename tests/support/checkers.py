"""The programs of `deploy/checkers.txt`, which check what `deploy/` has for operators."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, Final

ROOT: Final = Path(__file__).resolve().parents[2]
FOLDER: Final = Path(sys.prefix) / "checkers"
_DOCUMENTS: Final = "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(sys.stdin)), default=str))"


def run(name: str, *words: str | Path, text: str = "", ends: int = 0) -> str:
    """Runs a checker, and returns what it prints; raises AssertionError with that where it ends otherwise."""
    program = FOLDER / "bin" / name
    assert program.exists(), f"{name} is missing: make setup DEPLOY=yes"
    return _output([str(program), *map(str, words)], text, ends)


def documents(text: str) -> list[dict[str, Any]]:
    """The documents of a YAML file."""
    found: list[dict[str, Any]] = json.loads(_output([sys.executable, "-c", _DOCUMENTS], text, 0))
    return found


def _output(argv: list[str], text: str, ends: int) -> str:
    ran = subprocess.run(
        argv,
        input=text,
        capture_output=True,
        text=True,
        check=False,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(FOLDER), "HOME": str(FOLDER)},
    )
    assert ran.returncode == ends, ran.stdout + ran.stderr
    return ran.stdout + ran.stderr
