"""The Lua check of ``make check``: luacheck on the library, and on the script of shared answers, as Redis loads them.

The library's files are one text for Redis, and use each other's functions; so they are one text for luacheck. What it
finds is printed with the file and line that it comes from, and makes the exit code 1.
"""

import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Final

from schemas.runtime.answers import LUA as ANSWERS
from tests.support.found import told
from workers.budget import rules
from workers.budget.script import FILES, FOLDER, Library

PROGRAM: Final = "luacheck"
MISSING: Final = f"{PROGRAM} is not installed: run `apt-get install lua-check`, or `luarocks install luacheck`"
# Redis's Lua is 5.1, with these beside (https://redis.io/docs/latest/develop/programmability/lua-api).
_GLOBALS: Final = ("redis", "struct", "KEYS", "ARGV")
_OPTIONS: Final = ("--std", "lua51", "--read-globals", *_GLOBALS, "--formatter", "plain", "--no-config", "-")
_FOUND: Final = re.compile(r"stdin:(\d+):(\d+): (.*)")


def places() -> list[str]:
    """Where each line of the library comes from."""
    text = Library().text.splitlines()
    files = [(name, (FOLDER / name).read_text(encoding="utf-8").splitlines()) for name in FILES]
    head = len(text) - 1 - sum(len(lines) for _, lines in files)  # the last line registers the function
    found = [f"{rules.__name__}, or the loader" for _ in range(head)]
    for name, lines in files:
        found += [f"workers/budget/lua/{name}:{number}" for number in range(1, len(lines) + 1)]
    return [*found, "the loader"]


def lint(text: str, where: Sequence[str]) -> list[str]:
    """What luacheck says of this text, each with its place.

    Args:
        text: as Redis gets it.
        where: each line's place.

    Raises:
        FileNotFoundError: there is no luacheck; it names the command to install it.
    """
    if not shutil.which(PROGRAM):
        raise FileNotFoundError(MISSING)
    # The first line names the library to Redis, and is no Lua.
    checked = "--" + text.partition("\n")[0] + "\n" + text.partition("\n")[2]
    done = subprocess.run([PROGRAM, *_OPTIONS], input=checked, capture_output=True, text=True, check=False)
    if done.returncode > 2:  # 1 for warnings, 2 for errors
        return [done.stdout + done.stderr]
    matches = filter(None, map(_FOUND.match, done.stdout.splitlines()))
    return [f"{where[int(match[1]) - 1]}: {match[3]}" for match in matches]


def found() -> list[str]:
    """What luacheck says of all that Redis gets; raises as `lint` does."""
    script = ANSWERS.read_text(encoding="utf-8")
    lines = [f"schemas/runtime/answers.lua:{number}" for number in range(1, len(script.splitlines()) + 1)]
    return lint(Library().text, places()) + lint(script, lines)


def main() -> int:
    """Prints what is found; the exit code."""
    return told(found)


if __name__ == "__main__":
    sys.exit(main())
