"""A private RabbitMQ cluster: three nodes on free ports of 127.0.0.1, each with a folder of its own.

Its quorum queues have a replica on each node, so it serves while any two of them do.
"""

import asyncio
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from msgspec import Struct

from deploy.processes import ProcessError, Startable, free_port
from deploy.servers import Membership, RabbitMQ, port_mapper

SIZE: Final = 3
# What operations.md asks for.
SETTINGS: Final = ("cluster_partition_handling = pause_minority", "net_ticktime = 15")
ADVANCED: Final = "[{rabbit, [{dead_letter_worker_publisher_confirm_timeout, 5000}]}]."


class Replicas(Struct, frozen=True):
    """Where a quorum queue lives: the names of nodes.

    Args:
        leader: the node that takes what is published; empty while there is none.
        members: the nodes with a replica.
        online: the nodes whose replica takes part at the moment.
    """

    leader: str
    members: frozenset[str]
    online: frozenset[str]


class Cluster(Startable):
    """Three nodes that are one broker. Any of them may be killed, stopped or frozen, and comes back as a member.

    Args:
        folder: keeps all of it, also over restarts.
        settings: lines for the nodes' configuration files.
    """

    def __init__(self, folder: Path, settings: Sequence[str] = SETTINGS) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        port, cookie = free_port(), secrets.token_hex(16)
        self._epmd = port_mapper(folder.resolve(), port)
        self.nodes: list[RabbitMQ] = []
        for number in range(1, SIZE + 1):
            name = f"fleet{number}"
            # The first one starts alone, and the others join it when they boot for the first time. Each node
            # must be in its own list too: RabbitMQ refuses the list otherwise.
            peers = list(dict.fromkeys(("fleet1@localhost", f"{name}@localhost")))
            lines = ["cluster_formation.peer_discovery_backend = classic_config"]
            lines += [f"cluster_formation.classic_config.nodes.{place} = {peer}" for place, peer in enumerate(peers, 1)]
            member = Membership(port, cookie, [*lines, *settings], ADVANCED)
            self.nodes.append(RabbitMQ(folder / name, name=name, member=member))

    @property
    def urls(self) -> list[str]:
        """Where clients connect: each node's URL."""
        return [node.url for node in self.nodes]

    @property
    def url(self) -> str:
        """All of them, as ``FLEET_BROKER_URL`` has them."""
        return ",".join(self.urls)

    async def start(self) -> None:
        """Starts the nodes that don't run, and returns when all serve; see `Server.start` for what it raises."""
        self._epmd.start()
        first, *others = self.nodes
        await first.start()
        await asyncio.gather(*(node.start() for node in others))

    async def stop(self) -> None:
        """Ends all nodes in order, by force after 20 s."""
        await asyncio.gather(*(node.stop() for node in self.nodes))
        self._epmd.kill()

    async def sync(self) -> None:
        """What `RabbitMQ.sync` does, on all nodes."""
        flush = "fun() -> [dets:sync(Table) || Table <- dets:all()] end"
        await self._running().eval(f"rpc:multicall(rabbit_nodes:all_running(), erlang, apply, [{flush}, []]).")

    async def replicas(self, vhost: str = "/") -> dict[str, Replicas]:
        """Where each quorum queue lives, by its name."""
        columns = ("type", "name", "leader", "members", "online")
        listed = await self._running().ctl("list_queues", "-p", vhost, "--no-table-headers", *columns)
        found: dict[str, Replicas] = {}
        # Others have empty columns, which the last line lacks.
        for kind, name, *rest in (line.split("\t") for line in listed.splitlines()):
            if kind == "quorum":
                leader, *nodes = rest
                found[name] = Replicas(leader, *(frozenset(each.strip("[]").split(", ")) for each in nodes))
        return found

    async def whole(self) -> bool:
        """Whether every quorum queue has a replica on every node, and all of them take part."""
        try:
            replicas = (await self.replicas()).values()
        except ProcessError:  # a node is just leaving or coming
            return False
        nodes = frozenset(node.node for node in self.nodes)
        return all(each.leader and each.members == each.online == nodes for each in replicas)

    async def leader(self, queue: str) -> RabbitMQ:
        """The node that leads a quorum queue."""
        return self.named((await self.replicas())[queue].leader)

    def named(self, name: str) -> RabbitMQ:
        """The node of this name."""
        return next(node for node in self.nodes if node.node == name)

    def _running(self) -> RabbitMQ:
        return next(node for node in self.nodes if node.running)
