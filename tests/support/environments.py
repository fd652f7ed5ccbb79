"""Clean virtual environments: the wheel, what its metadata ask for, and nothing else.

Packages are not downloaded: each is linked from the environment that runs the tests, found by its name and checked
against the version that is asked for. So what a wheel forgets to ask for is missing here as it would be elsewhere.
"""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import venv
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import Final

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

CHECKOUT: Final = Path(__file__).resolve().parents[2]
PIP: Final = (sys.executable, "-m", "pip", "--quiet", "--quiet", "--disable-pip-version-check", "--no-input")
OFFLINE: Final = ("--no-index", "--no-deps", "--no-cache-dir")


class Environment:
    """A virtual environment with one wheel of ours in it.

    Args:
        folder: where it goes.
        wheel: ours.
        extras: those of its extras whose packages are there too.
        also: packages that its programs use, with all that these ask for.
    """

    def __init__(self, folder: Path, wheel: Path, extras: Collection[str] = (), also: Collection[str] = ()) -> None:
        venv.create(folder, symlinks=True)
        self.bin = folder / "bin"
        (self.packages,) = folder.glob("lib/python*/site-packages")
        run([*PIP, "--python", str(self.bin / "python"), "install", *OFFLINE, str(wheel)])
        self.installed = sorted(path.name for path in self.packages.iterdir())
        theirs = [importlib.metadata.distribution(name) for name in also]
        further = [found for each in theirs for found in _asked(each, [])]
        for distribution in [*_asked(_metadata(wheel), extras), *theirs, *further]:
            for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
                link = self.packages / name
                if not link.exists():
                    link.symlink_to(Path(str(distribution.locate_file(name))))

    def run(self, *words: str, cwd: Path, env: Mapping[str, str] | None = None) -> str:
        """What a program of the environment prints; it must end well."""
        return run([str(self.bin / words[0]), *words[1:]], cwd=cwd, env=env)


def built(folder: Path) -> Path:
    """The wheel of this checkout, built in a folder by way of its source distribution."""
    argv = [sys.executable, "-c", "import sys; from deploy import wheel; wheel.build_sdist(sys.argv[1])", str(folder)]
    run(argv, cwd=copied(folder))
    (sdist,) = folder.glob("*.tar.gz")
    return packed(sdist, folder)


def copied(folder: Path) -> Path:
    """A copy of this checkout, as far as the package is made of it: a build writes into the folder of its source."""
    copy = folder / "source"
    left_out = shutil.ignore_patterns(".*", "__pycache__", "tests", "build", "dist", "*.egg-info")
    shutil.copytree(CHECKOUT, copy, ignore=left_out)
    return copy


def packed(source: Path, folder: Path) -> Path:
    """The wheel that pip makes of a folder or a source distribution, with what is installed here."""
    run([*PIP, "wheel", *OFFLINE, "--no-build-isolation", "--wheel-dir", str(folder), str(source)])
    (wheel,) = folder.glob("*.whl")
    return wheel


def run(argv: list[str], *, cwd: Path = Path("/"), env: Mapping[str, str] | None = None) -> str:
    """What a program prints; it must end well."""
    whole = {**os.environ, **(env or {})}
    done = subprocess.run(argv, cwd=cwd, env=whole, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _metadata(wheel: Path) -> importlib.metadata.Distribution:
    (found,) = importlib.metadata.distributions(path=[str(wheel)])
    return found


def _asked(
    distribution: importlib.metadata.Distribution, extras: Collection[str]
) -> Iterator[importlib.metadata.Distribution]:
    """All that a distribution with these extras asks for, and what that asks for."""
    seen: set[tuple[str, str]] = set()
    left = [(distribution, extra) for extra in ("", *extras)]
    while left:
        asking, extra = left.pop()
        for wanted in map(Requirement, asking.requires or ()):
            if wanted.marker and not wanted.marker.evaluate({"extra": extra}):
                continue
            name = canonicalize_name(wanted.name)
            own = name == canonicalize_name(distribution.name)
            found = distribution if own else importlib.metadata.distribution(name)
            assert own or found.version in wanted.specifier, f"{wanted} is asked for, and {found.version} is here"
            for further in {(name, each) for each in ("", *wanted.extras)} - seen:
                seen.add(further)
                left.append((found, further[1]))
                if not own:
                    yield found
