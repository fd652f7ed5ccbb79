"""What `deploy/images/Dockerfile` says of each role's image."""

import json
import re
from typing import Final

from tests.support import checkers

FILE: Final = checkers.ROOT / "deploy" / "images" / "Dockerfile"
TEXT: Final = FILE.read_text(encoding="utf-8")
# Those that run in production; the simulator is for practice.
ROLES: Final = ("dispatcher", "worker", "gateway")
_PARTS: Final = re.split(r"^FROM (\S+) AS (\S+)$", TEXT, flags=re.MULTILINE)
STAGES: Final = dict(zip(_PARTS[2::3], _PARTS[3::3], strict=True))


def words(role: str) -> list[str]:
    """What the image starts, and its arguments."""
    return [word for name in ("ENTRYPOINT", "CMD") for word in _list(role, name)]


def option(role: str, name: str) -> str:
    """The value of an option of what it starts."""
    found = words(role)
    return found[found.index(name) + 1]


def exposed(role: str) -> set[int]:
    """Its ports."""
    found: set[int] = set()
    for text in " ".join(re.findall(r"^EXPOSE (.*)$", STAGES[role], re.MULTILINE)).split():
        first, _, last = text.partition("-")
        found |= set(range(int(first), int(last or first) + 1))
    return found


def user() -> tuple[int, int]:
    """Whom all of them run as: the user and the group."""
    (found,) = re.findall(r"^USER (\d+):(\d+)$", STAGES["base"], re.MULTILINE)
    return int(found[0]), int(found[1])


def asked(role: str) -> str:
    """The URL that its check asks."""
    (found,) = re.findall(r"urlopen\('([^']+)'", STAGES[role])
    return str(found)


def _list(role: str, name: str) -> list[str]:
    # The check's own words stand on a line that begins with blanks.
    lines = re.findall(rf"^{name} (\[.*\])$", STAGES[role], re.MULTILINE)
    found: list[str] = json.loads(lines[0]) if lines else []
    return found
