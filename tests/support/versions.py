"""The version before this one, as its files, for tests in which both run side by side."""

import subprocess
import tarfile
from io import BytesIO
from pathlib import Path
from typing import Final

from schemas.runtime import modules

# Where no version is tagged yet: the last commit before signed calls, lanes that rest and are shared out, and Redis
# with Sentinels or as a Cluster came. Dispatchers much older refuse what could be answered.
UNTAGGED: Final = "1120b2d7f20d66f44e0c59244de0e8d631dfb41c"


def last() -> str:
    """The newest tagged version that this one descends from and is not, else `UNTAGGED`."""
    tags = _git(
        "tag", "--list", "v*", "--merged", "HEAD", "--no-contains", "HEAD", "--sort", "-version:refname"
    ).split()
    return tags[0].decode() if tags else UNTAGGED


def checked_out(version: str, folder: Path) -> Path:
    """Lays out the files of a version in a folder, and returns it.

    Raises:
        AssertionError: this is no clone, or one that lacks the version; says how to get it.
    """
    packed = _git("archive", "--format", "tar", version)
    with tarfile.open(fileobj=BytesIO(packed)) as files:
        files.extractall(folder, filter="data")
    return folder


def _git(*words: str) -> bytes:
    assert modules.CHECKOUT is not None
    done = subprocess.run(["git", *words], cwd=modules.CHECKOUT, capture_output=True, check=False)
    said = done.stderr.decode(errors="replace").strip()
    assert done.returncode == 0, f"this test needs the history of a git clone (git fetch --unshallow --tags): {said}"
    return done.stdout
