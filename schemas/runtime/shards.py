"""A Redis Cluster as one client: each command goes to the primary that serves its key's slot.

redis-py has a client for clusters too, which repeats commands whose answer was lost, gives up where a node has no
connection left, and closes all connections when one node is lost. Here each node has the client that a Redis alone has
(`store`). A command is repeated only where a node has refused to run it, because its slot is elsewhere (MOVED, ASK).
All else that goes wrong is raised, and the map of the slots is asked for anew meanwhile.

What the fleet asks in one command lies in one slot: a key's part in braces says which.
"""

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Iterable, Sequence
from typing import Any, Final, TypeAlias

import redis.asyncio
import redis.exceptions
from redis.asyncio.client import Pipeline
from redis.crc import key_slot

from .tasks import end_tasks

Place: TypeAlias = tuple[str, int]
Command: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]

SLOTS: Final = 16384
# A slot that is moved twice meanwhile is rare.
REDIRECTS: Final = 4
# The map is not asked for more often than this, however many commands fail.
LEARN_EVERY_S: Final = 0.2
# Commands whose first key stands behind a script, or a function, and the number of keys.
_SCRIPTS: Final = frozenset({"FCALL", "EVAL", "EVALSHA"})
_KEYLESS: Final = frozenset({"PING", "TIME", "INFO", "CONFIG", "SCRIPT", "FUNCTION", "CLUSTER"})
# What every primary has to have.
_EVERYWHERE: Final = frozenset({"SCRIPT LOAD", "FUNCTION LOAD"})
# Errors after which the map may be wrong: the node is away, is no primary any more, or sees the cluster broken.
_STALE: Final = (
    redis.exceptions.ConnectionError,
    redis.exceptions.TimeoutError,
    redis.exceptions.ReadOnlyError,
    redis.exceptions.ClusterDownError,
    OSError,
)


class Shards(redis.asyncio.Redis):
    """All primaries of one cluster.

    Args:
        seeds: nodes of it, as they are named by whoever runs the fleet.
        make: makes a node's client.
    """

    def __init__(self, seeds: Sequence[Place], make: Callable[[Place], redis.asyncio.Redis]) -> None:
        self._seeds, self._make = seeds, make
        self._nodes: dict[Place, Any] = {place: make(place) for place in seeds}
        super().__init__(connection_pool=self._nodes[seeds[0]].connection_pool)
        self._map: list[Place | None] = [None] * SLOTS
        self._learning: asyncio.Task[None] | None = None
        self._learned_s = float("-inf")

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        """Ends all connections."""
        if self._learning is not None:
            await end_tasks([self._learning])
        for node in self._nodes.values():
            await node.aclose()

    async def execute_command(self, *args: Any, **options: Any) -> Any:
        """Runs a command at the node that has its key.

        Raises:
            RedisError, OSError: there is no usable answer.
        """
        key = key_of(args)
        if key is None:
            return await self._without_key(args, options)
        place = await self._place(key)
        for _ in range(REDIRECTS):
            try:
                return await self._nodes[place].execute_command(*args, **options)
            except redis.exceptions.AskError as error:  # also MOVED: neither was run
                any_error: Any = error
                elsewhere: Place = any_error.host or place[0], any_error.port
                if not isinstance(error, redis.exceptions.MovedError):
                    return await self._asking(elsewhere, args, options)
                place = self._moved(any_error.slot_id, elsewhere)
            except _STALE:
                self._learn_soon()
                raise
        raise redis.exceptions.ClusterError(f"slot {slot_of(key)} moved {REDIRECTS} times")

    def pipeline(self, transaction: bool = True, shard_hint: str | None = None) -> "ShardsPipeline":
        """Commands that go out together; in a transaction they have to have their keys in one slot."""
        return ShardsPipeline(self, transaction=transaction)

    async def mget(self, keys: Any, *args: Any) -> list[Any]:
        """The values of any keys; each where it is, so not all at one instant."""
        pipeline = self.pipeline(transaction=False)
        for key in [*([keys] if isinstance(keys, str | bytes) else keys), *args]:
            pipeline.get(key)
        return await pipeline.execute()

    async def scan_iter(self, *args: Any, **options: Any) -> AsyncGenerator[Any, None]:  # type: ignore[override]
        """All keys that match, of one primary after another."""
        for _, node in await self.primaries():
            async for key in node.scan_iter(*args, **options):
                yield key

    async def primaries(self) -> list[tuple[Place, Any]]:
        """The primaries, each with its client.

        Raises:
            RedisError, OSError: no node says which there are.
        """
        if None in self._map:
            await self._learn()
        return [(place, self._nodes[place]) for place in sorted({place for place in self._map if place})]

    async def primary_of(self, key: str) -> Any:
        """The client of the node that has a key; raises as `primaries` does."""
        return self._nodes[await self._place(key)]

    async def run_all(self, commands: Sequence[Command]) -> list[Any]:
        """Runs commands, those of each node in one round trip; an error takes the place of an answer.

        Raises:
            RedisError, OSError: no node answered.
        """
        answers: list[Any] = [None] * len(commands)
        by_place: dict[Place, list[int]] = {}
        for number, (args, _) in enumerate(commands):
            by_place.setdefault(await self._place(_key_of(args)), []).append(number)

        async def run(place: Place, numbers: list[int]) -> bool:
            pipeline = self._nodes[place].pipeline(transaction=False)
            for number in numbers:
                args, options = commands[number]
                pipeline.execute_command(*args, **options)
            lost = False
            try:
                found: Iterable[Any] = await pipeline.execute(raise_on_error=False)
            except (redis.exceptions.RedisError, OSError) as error:
                self._learn_soon()
                found, lost = [error] * len(numbers), True
            for number, answer in zip(numbers, found, strict=True):
                answers[number] = answer
            return not lost

        answered = await asyncio.gather(*(run(*each) for each in by_place.items()))
        if not any(answered):
            raise next(answer for answer in answers if isinstance(answer, Exception))
        for number, answer in enumerate(answers):
            if isinstance(answer, redis.exceptions.AskError):
                answers[number] = await self._again(*commands[number])
            elif isinstance(answer, _STALE):
                self._learn_soon()
        return answers

    async def run_as_one(self, commands: Sequence[Command]) -> list[Any]:
        """Runs commands as one transaction, at the node of the first one's key.

        Raises:
            RedisError, OSError: one of them has no usable answer. Where the slot is elsewhere none was run.
        """
        place = await self._place(_key_of(commands[0][0]))
        pipeline = self._nodes[place].pipeline(transaction=True)
        for args, options in commands:
            pipeline.execute_command(*args, **options)
        try:
            found: list[Any] = await pipeline.execute()
        except (redis.exceptions.RedisError, OSError):
            self._learn_soon()
            raise
        return found

    async def _again(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Runs a command that its node has refused; an error is the answer."""
        try:
            return await self.execute_command(*args, **options)
        except (redis.exceptions.RedisError, OSError) as error:
            return error

    async def _without_key(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """At every primary for what each has to have, else at the first that answers."""
        nodes = [node for _, node in await self.primaries()]
        if not nodes:
            raise redis.exceptions.ClusterDownError("the cluster serves no slots")
        if args[0] in _EVERYWHERE:
            said = await asyncio.gather(
                *(node.execute_command(*args, **options) for node in nodes), return_exceptions=True
            )
            errors = [each for each in said if isinstance(each, BaseException)]
            if len(errors) == len(said):
                raise errors[0]
            # The others get it when they are back, and say that they lack it.
            return next(each for each in said if not isinstance(each, BaseException))
        error: Exception | None = None
        for node in nodes:
            try:
                return await node.execute_command(*args, **options)
            except _STALE as lost:
                error = lost
        self._learn_soon()
        assert error is not None
        raise error

    async def _asking(self, place: Place, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """At a node that is about to get the slot."""
        pipeline = self._node(place).pipeline(transaction=False)
        pipeline.execute_command("ASKING")
        pipeline.execute_command(*args, **options)
        return (await pipeline.execute())[1]

    def _moved(self, slot: int, place: Place) -> Place:
        self._node(place)
        self._map[slot] = place
        self._learn_soon()  # others will have moved too
        return place

    def _node(self, place: Place) -> Any:
        if place not in self._nodes:
            self._nodes[place] = self._make(place)
        return self._nodes[place]

    async def _place(self, key: str | bytes) -> Place:
        slot = slot_of(key)
        if self._map[slot] is None:
            await self._learn()
        place = self._map[slot]
        if place is None:
            raise redis.exceptions.ClusterDownError(f"no node serves slot {slot}")
        return place

    def _learn_soon(self) -> None:
        """Asks for the map anew, beside what goes on."""
        if self._learning is None or self._learning.done():
            self._learning = asyncio.create_task(self._ask_quietly(), name="slots")

    async def _ask_quietly(self) -> None:
        with contextlib.suppress(redis.exceptions.RedisError, OSError):  # the next loss has it asked for again
            await self._ask_all()

    async def _learn(self) -> None:
        """Returns when the map was asked for; raises where no node says."""
        if self._learning is not None and not self._learning.done():
            await asyncio.shield(self._learning)
        if None in self._map:
            await self._ask_all()

    async def _ask_all(self) -> None:
        """Takes the map of the node that has seen most: one that is cut off from the others has an old one."""
        loop = asyncio.get_running_loop()
        await asyncio.sleep(self._learned_s + LEARN_EVERY_S - loop.time())
        self._learned_s = loop.time()
        asked = dict.fromkeys((*self._seeds, *self._nodes))
        found = await asyncio.gather(*(_ask(self._nodes[place]) for place in asked), return_exceptions=True)
        maps = [
            (seen, _taken(said, place[0]))
            for place, each in zip(asked, found, strict=True)
            if not isinstance(each, BaseException)
            for seen, said in [each]
        ]
        if not maps:
            raise next(each for each in found if isinstance(each, BaseException))
        self._map = max(maps, key=lambda each: each[0])[1]
        for place in {place for place in self._map if place}:
            self._node(place)
        for place in self._nodes.keys() - set(self._map) - set(self._seeds):
            await self._nodes.pop(place).aclose()


class ShardsPipeline(Pipeline):
    """Commands for a cluster that go out together."""

    def __init__(self, shards: Shards, *, transaction: bool) -> None:
        super().__init__(shards.connection_pool, shards.response_callbacks, transaction, None)
        self._shards = shards

    async def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Runs them; raises as `Shards.run_all` and `Shards.run_as_one` do, or the first error if that is asked for."""
        any_pipeline: Any = self
        commands: list[Command] = list(any_pipeline.command_stack)
        await any_pipeline.reset()
        if self.is_transaction:
            return await self._shards.run_as_one(commands)
        answers = await self._shards.run_all(commands)
        if raise_on_error:
            for answer in answers:
                if isinstance(answer, Exception):
                    raise answer
        return answers


def key_of(args: Sequence[Any]) -> str | bytes | None:
    """A command's first key; None where it has none."""
    name = str(args[0])
    if name in _SCRIPTS:
        return args[3] if int(args[2]) else None
    return None if name.partition(" ")[0] in _KEYLESS or len(args) < 2 else args[1]


def _key_of(args: Sequence[Any]) -> str | bytes:
    key = key_of(args)
    if key is None:
        raise redis.exceptions.ClusterError(f"{args[0]} has no key, which says where it belongs")
    return key


def slot_of(key: str | bytes) -> int:
    """The slot in which a key lies."""
    return key_slot(key.encode() if isinstance(key, str) else key)


async def _ask(node: Any) -> tuple[tuple[bool, int], list[Any]]:
    """How a node sees the cluster: whether it is whole, the newest change it has heard of, and the map."""
    pipeline = node.pipeline(transaction=False)
    pipeline.execute_command("CLUSTER", "INFO")
    pipeline.execute_command("CLUSTER", "SLOTS")
    info, said = await pipeline.execute()
    lines = dict(line.split(":", 1) for line in info.decode().splitlines() if ":" in line)
    return (lines["cluster_state"] == "ok", int(lines["cluster_current_epoch"])), said


def _taken(said: Iterable[Any], asked: str) -> list[Place | None]:
    """The map, as CLUSTER SLOTS says it; a node that does not know its own host leaves it empty."""
    found: list[Place | None] = [None] * SLOTS
    for first, last, primary, *_ in said:
        host, port = primary[:2]
        found[first : last + 1] = [((host or b"").decode() or asked, int(port))] * (last - first + 1)
    return found
