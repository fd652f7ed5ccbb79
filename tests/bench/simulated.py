"""Simulated time: events in order, processes that do one thing at a time, and the cores that they share."""

import heapq
import itertools
from collections import deque
from collections.abc import Callable


class World:
    """The model's time."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()

    def after(self, wait_s: float, event: Callable[[], None]) -> None:
        """Has something happen later."""
        heapq.heappush(self._events, (self.now_s + wait_s, next(self._numbers), event))

    def run(self, until_s: float) -> None:
        """Lets time pass."""
        while self._events and self._events[0][0] <= until_s:
            self.now_s, _, event = heapq.heappop(self._events)
            event()


class Cores:
    """The cores of a machine: who wants one waits for it in order. None have room for all."""

    def __init__(self, count: int | None) -> None:
        self._free, self._waiting = count, deque[Callable[[], None]]()

    def take(self, then: Callable[[], None]) -> None:
        """Calls `then` when there is one."""
        if self._free is None:
            then()
        elif self._free > 0:
            self._free -= 1
            then()
        else:
            self._waiting.append(then)

    def give(self) -> None:
        """One is free again."""
        if self._free is None:
            return
        if self._waiting:
            self._waiting.popleft()()
        else:
            self._free += 1


class Part:
    """A process, or one with threads, that takes from one line.

    Args:
        world: whose time it is in.
        cores: of its machine.
        threads: how much it does at the same time.
        busy: what part of its cost a thing takes while others wait behind it.
    """

    def __init__(self, world: World, cores: Cores, threads: int = 1, busy: float = 1.0) -> None:
        self._world, self._cores, self._idle, self._busy = world, cores, threads, busy
        self._line = deque[tuple[float, Callable[[], None]]]()
        self.busy_s = 0.0
        self.threads = threads

    def do(self, cost_s: float, then: Callable[[], None]) -> None:
        """Calls `then` when that much work is done, after all that was asked for before."""
        self._line.append((cost_s, then))
        if self._idle:
            self._idle -= 1
            self._next()

    def _next(self) -> None:
        cost_s, then = self._line.popleft()
        self._cores.take(lambda: self._begin(cost_s, then))

    def _begin(self, cost_s: float, then: Callable[[], None]) -> None:
        cost_s *= self._busy if self._line else 1.0
        self.busy_s += cost_s

        def end() -> None:
            self._cores.give()
            if self._line:
                self._next()
            else:
                self._idle += 1
            then()

        self._world.after(cost_s, end)
