"""Redis as several private servers on free ports of 127.0.0.1: a Cluster, and a primary with a replica and Sentinels.

Both find that a server is lost after a second, where operators leave it at 5 to 30.
"""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import redis.asyncio
import redis.exceptions

from deploy.processes import Process, ProcessError, Startable, free_port
from deploy.servers import REDIS_PROGRAMS, Redis, find_program, packed_valkey

SHARDS: Final = 3
SENTINELS: Final = 3
SLOTS: Final = 16384
LOST_AFTER_MS: Final = 1_000
SERVICE: Final = "fleet"
READY_S: Final = 60.0


class RedisCluster(Startable):
    """A Redis Cluster; any node may be killed, stopped or frozen, and comes back as it was.

    Args:
        folder: for the nodes' folders.
        program: the server to run, as for `Redis`.
        replicas: of each shard.
    """

    def __init__(self, folder: Path, program: Path | None = None, *, replicas: int = 0) -> None:
        program = _installed(program)
        self.nodes: list[Redis] = []
        for number in range(SHARDS * (1 + replicas)):
            words = ["--cluster-enabled", "yes", "--cluster-port", str(free_port())]
            words += ["--cluster-node-timeout", str(LOST_AFTER_MS), "--cluster-replica-validity-factor", "0"]
            self.nodes.append(Redis(folder / f"node-{number + 1}", program, settings=words))
        self._buses = [node.settings[3] for node in self.nodes]

    @property
    def url(self) -> str:
        """Where clients connect: all nodes."""
        return "redis+cluster://" + ",".join(f"127.0.0.1:{node.port}" for node in self.nodes)

    async def start(self) -> None:
        """Starts the nodes that don't run; returns when all slots are served. See `Server.start` for what it raises."""
        await asyncio.gather(*(node.start() for node in self.nodes))
        if await self._is_whole():
            return
        primaries, replicas = self.nodes[:SHARDS], self.nodes[SHARDS:]
        for number, node in enumerate(primaries):
            span = SLOTS * number // SHARDS, SLOTS * (number + 1) // SHARDS - 1
            await _said(node, "CLUSTER", "ADDSLOTSRANGE", *span)
        for node, bus in zip(self.nodes[1:], self._buses[1:], strict=True):
            await _said(self.nodes[0], "CLUSTER", "MEET", "127.0.0.1", node.port, bus)
        await _until(self._is_met, "the nodes know each other")
        for number, node in enumerate(replicas):
            of = (await _said(primaries[number % SHARDS], "CLUSTER", "MYID")).decode()
            await _said(node, "CLUSTER", "REPLICATE", of)
        await _until(self._is_whole, "the cluster is whole")

    async def stop(self) -> None:
        """Ends all nodes."""
        await asyncio.gather(*(node.stop() for node in self.nodes))

    async def primary(self, slot: int) -> Redis:
        """The node that serves a slot, as the first one that runs has it."""
        running = next(node for node in self.nodes if node.running)
        for first, last, (_, port, *_), *_ in await _said(running, "CLUSTER", "SLOTS"):
            if first <= slot <= last:
                return next(node for node in self.nodes if node.port == port)
        raise ProcessError(f"no node serves slot {slot}")

    async def _is_met(self) -> bool:
        infos = [await _info(node, "CLUSTER", "INFO") for node in self.nodes]
        return all(
            info["cluster_state"] == "ok" and info["cluster_known_nodes"] == str(len(self.nodes)) for info in infos
        )

    async def _is_whole(self) -> bool:
        if not await self._is_met():
            return False
        links = [await _info(node, "INFO", "replication") for node in self.nodes]
        up = sum(info.get("master_link_status") == "up" for info in links)
        return up == len(self.nodes) - SHARDS


class RedisReplicated(Startable):
    """A primary, a replica, and three Sentinels that promote it."""

    def __init__(self, folder: Path, program: Path | None = None) -> None:
        program = _installed(program)
        self.primary, self.replica = Redis(folder / "a", program), Redis(folder / "b", program)
        self.sentinels = [
            Sentinel(folder / f"sentinel-{number + 1}", program, self.primary.port) for number in range(SENTINELS)
        ]

    @property
    def url(self) -> str:
        """Where clients connect: the Sentinels, and the service's name."""
        return "redis+sentinel://" + ",".join(f"127.0.0.1:{one.port}" for one in self.sentinels) + f"/{SERVICE}"

    async def start(self) -> None:
        """Starts all, and returns when the Sentinels would promote the replica."""
        await asyncio.gather(self.primary.start(), self.replica.start())
        await _said(self.replica, "REPLICAOF", "127.0.0.1", self.primary.port)
        await asyncio.gather(*(sentinel.start() for sentinel in self.sentinels))
        await _until(self._is_ready, "the Sentinels know each other and the replica")

    async def stop(self) -> None:
        """Ends all."""
        await asyncio.gather(*(one.stop() for one in (*self.sentinels, self.primary, self.replica)))

    async def promoted(self) -> bool:
        """Whether the replica is primary, as all Sentinels have it."""
        for sentinel in self.sentinels:
            at = await _said(sentinel, "SENTINEL", "GET-MASTER-ADDR-BY-NAME", SERVICE)
            if int(at[1]) != self.replica.port:
                return False
        return (await _info(self.replica, "INFO", "replication"))["role"] == "master"

    async def _is_ready(self) -> bool:
        for sentinel in self.sentinels:
            said = await _said(sentinel, "SENTINEL", "MASTER", SERVICE)
            known = dict(zip(said[::2], said[1::2], strict=True))
            if (known[b"num-slaves"], known[b"num-other-sentinels"]) != (b"1", b"%d" % (SENTINELS - 1)):
                return False
        return (await _info(self.replica, "INFO", "replication"))["master_link_status"] == "up"


class Sentinel(Redis):
    """One Sentinel.

    Args:
        folder: for its log and its configuration, which it rewrites.
        program: the server to run.
        primary: the port of the server that is primary at first.
    """

    title = "Redis Sentinel"

    def __init__(self, folder: Path, program: Path, primary: int) -> None:
        self._primary = primary
        super().__init__(folder, program)

    def _prepare(self) -> Process:
        file = self.folder.resolve() / "sentinel.conf"
        lines = [
            f"port {self.port}",
            "bind 127.0.0.1",
            f"dir {self.folder.resolve()}",
            f"sentinel monitor {SERVICE} 127.0.0.1 {self._primary} {SENTINELS // 2 + 1}",
            f"sentinel down-after-milliseconds {SERVICE} {LOST_AFTER_MS}",
            f"sentinel failover-timeout {SERVICE} 5000",
        ]
        file.write_text("".join(f"{line}\n" for line in lines))
        return self.process([str(file), "--sentinel"])


def _installed(program: Path | None) -> Path:
    """The server's program: several servers are not run in containers."""
    found = program or find_program(*REDIS_PROGRAMS) or packed_valkey()
    if found is None:
        raise ProcessError(f"none of {', '.join(REDIS_PROGRAMS)} is on this machine: install one of them")
    return found


async def _said(node: Redis, *command: str | int) -> Any:
    async with redis.asyncio.Redis(port=node.port, protocol=2, socket_timeout=5) as client:
        any_client: Any = client
        return await any_client.execute_command(*command)


async def _info(node: Redis, *command: str) -> dict[str, str]:
    """What a command says in lines of ``name:value``; redis-py parses some of them."""
    said = await _said(node, *command)
    if isinstance(said, bytes):
        return dict(line.split(":", 1) for line in said.decode().splitlines() if ":" in line)
    return {name: str(value) for name, value in said.items()}


async def _until(check: Callable[[], Awaitable[bool]], what: str) -> None:
    deadline_s = asyncio.get_running_loop().time() + READY_S
    while True:
        try:
            if await check():
                return
        except (redis.exceptions.RedisError, OSError, KeyError):
            pass
        if asyncio.get_running_loop().time() > deadline_s:
            raise ProcessError(f"not within {READY_S:.0f} s: {what}")
        await asyncio.sleep(0.1)
