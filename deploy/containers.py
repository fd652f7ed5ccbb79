"""A server in a Docker container, for a machine that has an engine and not the server itself."""

import contextlib
import os
import secrets
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from deploy.processes import Process, ProcessError

INSTALL = "install it (Debian and Ubuntu: `sudo apt-get install {0}`), or start Docker"

# The container ends when we do, however we end: the engine closes its standard input then. A shell gives its background
# jobs no standard input, so it is passed on by hand. The second `wait` follows a first one that a signal cut short.
GUARD = """
exec 3<&0
"$@" </dev/null 3<&- & server=$!
trap 'kill -TERM $server' TERM
{ cat <&3 >/dev/null; kill -KILL $server; } &
wait $server
wait $server
"""


def docker_answers() -> bool:
    """Whether there is a Docker command and an engine that answers it."""
    return shutil.which("docker") is not None and _docker("info").returncode == 0


class Container(Process):
    """A container as a child process: its folder is mounted, its port published on 127.0.0.1 alone.

    It runs as our own user, so that the folder stays ours to read and to remove. Raises ProcessError where no engine
    answers.
    """

    def __init__(
        self,
        image: str,
        command: Sequence[str],
        *,
        env: Mapping[str, str],
        ports: tuple[int, int],
        mount: str,
        log: Path,
    ) -> None:
        """`ports` are the one here and the one inside; the log's folder appears as `mount` inside."""
        if not docker_answers():
            raise ProcessError(f"{command[0]} is not on this machine: {INSTALL.format(command[0])}")
        super().__init__(["docker"], log=log, env=os.environ, stdin=subprocess.PIPE)
        self.name = ""
        self._run = ["docker", "run", "--rm", "--interactive", "--publish", f"127.0.0.1:{ports[0]}:{ports[1]}"]
        self._run += ["--volume", f"{log.parent}:{mount}", "--user", f"{os.getuid()}:{os.getgid()}"]
        for name, value in env.items():
            self._run += ["--env", f"{name}={value}"]
        self._inside = [image, "sh", "-c", GUARD, "sh", *command]

    def start(self) -> None:
        """Start a new container on the same folder and port."""
        if self.running:
            return
        self.name = f"ccxt-fleet-{secrets.token_hex(4)}"
        self._argv[4:] = [*self._run, "--name", self.name, *self._inside]
        super().start()

    def kill(self) -> None:
        """SIGKILL the server in the container and wait until the engine has removed it."""
        if self._child is not None and self.running:
            _docker("kill", self.name)
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._child.wait(timeout=20)
        super().kill()

    def freeze(self) -> None:
        """Pause the container. Raises ProcessError when the engine cannot."""
        if self.running and (done := _docker("pause", self.name)).returncode:
            raise ProcessError(f"docker cannot pause {self.name}: {done.stderr}")

    def thaw(self) -> None:
        """Let a paused container go on."""
        if self.running:
            _docker("unpause", self.name)


def _docker(*args: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["docker", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False)
