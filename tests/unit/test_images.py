"""The Dockerfile: what its linter says, that all it installs is pinned by hash, and what goes into which image."""

import re
import sys
from urllib.parse import urlsplit

import pytest

from deploy import sbom
from deploy.simulator.__main__ import USUAL
from tests.support import checkers, dockerfile

FOLDER = dockerfile.FILE.parent
CONSTRAINTS = (checkers.ROOT / "constraints.txt").read_text(encoding="utf-8")


def pinned(text: str) -> dict[str, tuple[str, int]]:
    """The version of each package, and by how many hashes it is pinned."""
    found = re.findall(r"^([\w.-]+)==(\S+)[^\n]*\n((?: +--hash=sha256:[0-9a-f]{64}[ \\]*\n?)*)", text, re.MULTILINE)
    return {name: (version, hashes.count("--hash")) for name, version, hashes in found}


def test_the_linter_finds_nothing() -> None:
    assert checkers.run("hadolint", dockerfile.FILE) == ""


def test_the_linter_finds_what_is_wrong() -> None:
    assert "DL3000" in checkers.run(
        "hadolint", "-", text=dockerfile.TEXT.replace("WORKDIR /src", "WORKDIR src"), ends=1
    )


@pytest.mark.parametrize("name", ["build", "dispatcher", "worker"])
def test_packages_are_those_of_the_constraints(name: str) -> None:
    ours, theirs = pinned((FOLDER / f"{name}.txt").read_text(encoding="utf-8")), pinned(CONSTRAINTS)
    assert ours
    assert {package: theirs[package] for package in ours} == ours
    assert all(hashes for _, hashes in ours.values())
    assert ("ccxt" in ours) == (name == "worker")


def test_pip_installs_nothing_without_a_hash() -> None:
    joined = dockerfile.TEXT.replace("\\\n", " ")
    installs = [words for words in re.split(r"&&|\n", joined) if re.search(r"\binstall --", words)]
    assert len(installs) == 5
    for words in installs:
        assert "--require-hashes" in words or "--no-index --no-deps /wheels/" in words, words


@pytest.mark.parametrize("role", [*dockerfile.ROLES, "simulator"])
def test_an_image_runs_python_itself_and_says_how_it_is(role: str) -> None:
    stage = dockerfile.STAGES[role]
    assert dockerfile.words(role)[:3] == ["python", "-P", "-m"]  # no shell between, so that SIGTERM reaches it
    assert f"--from=install-{'worker' if role == 'worker' else 'dispatcher'} " in stage
    asked = urlsplit(dockerfile.asked(role))
    assert str(asked.port) in dockerfile.words(role)
    assert asked.port in dockerfile.exposed(role)
    if role == "simulator":
        assert dockerfile.exposed(role) == {asked.port + place for place in range(len(USUAL) + 1)}
    assert dockerfile.user() == (10001, 10001)


def test_the_bill_of_materials_lists_every_distribution(capsys: pytest.CaptureFixture[str]) -> None:
    class Ours:
        name, version, metadata = "ccxt_fleet", "0.1.0", {"License-Expression": "MIT"}

    from importlib.metadata import distributions

    found = sbom.bom([*distributions(path=sys.path), Ours()])  # type: ignore[list-item]
    names = {part["name"]: part for part in found["components"]}
    assert {"ccxt", "aiohttp", "prometheus-client", "ccxt-fleet"} <= names.keys()
    assert names["ccxt-fleet"]["licenses"] == [{"license": {"name": "MIT"}}]
    assert all(part["purl"] == f"pkg:pypi/{part['name']}@{part['version']}" for part in names.values())
    assert found["metadata"]["component"]["version"] == "0.1.0"
