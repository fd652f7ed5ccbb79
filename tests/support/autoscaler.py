"""Starts and stops worker processes as Kubernetes does with what KEDA tells it; see `deploy/kubernetes`."""

import asyncio
import math
import signal
from collections import deque
from collections.abc import Callable

from deploy.local import Service, Services

# A HorizontalPodAutoscaler leaves a number that is wrong by less than this as it is.
TOLERANCE = 0.1


class Autoscaler:
    """One for a fleet.

    Args:
        fleet: its dispatchers are asked, its workers come and go.
        most: never more workers than this.
        every_s: how often it looks.
        up: more are started only if more were wanted at so many looks in a row; the fewest of them count.
        down: fewer are left only if fewer were wanted at so many looks in a row; the most of them count.

    Attributes:
        running: the workers that were not told to stop.
        counts: how many were running after each look.
        said: what the dispatchers said at each look, with their reasons.
    """

    def __init__(self, fleet: Services, *, most: int, every_s: float, up: int, down: int) -> None:
        self._fleet, self._most, self._every_s = fleet, most, every_s
        self._up, self._down = up, down
        self._wanted: deque[int] = deque(maxlen=max(up, down))
        self.running = list(fleet.workers)
        self.counts: list[int] = []
        self.said: list[str] = []

    async def run(self, until: Callable[[], bool]) -> None:
        """Looks again and again, until this is true after a look."""
        while not self.counts or not until():
            await self._look()
            await asyncio.sleep(self._every_s)

    async def _look(self) -> None:
        seen = [await dispatcher.status() for dispatcher in self._fleet.dispatchers]
        metric = max(each["workers_wanted"] for each in seen)
        self.said.append(f"{len(self.running)} run: {[(s['workers_wanted'], s['workers_wanted_why']) for s in seen]}")
        if metric > 0:  # else nobody knows yet
            self._scale(metric)
        self.counts.append(len(self.running))

    def _scale(self, metric: int) -> None:
        running = len(self.running)
        enough = abs(metric / running - 1) <= TOLERANCE
        self._wanted.append(running if enough else math.ceil(metric))
        wanted = list(self._wanted)
        least, most = max(wanted[-self._down :]), min(wanted[-self._up :])
        desired = min(self._most, max(running, most) if least >= running else least)
        for _ in range(desired - running):
            self.running.append(self._fleet.add_worker())
        for _ in range(running - desired):
            self._stop(self.running.pop(0))

    @staticmethod
    def _stop(worker: Service) -> None:
        worker.send(signal.SIGTERM)  # it drains, and ends by itself
