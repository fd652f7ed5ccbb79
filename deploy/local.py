"""The fleet's services on this machine, on servers that are there: each is a process with its log in one folder.

`deploy.up`, the demo, the tests and the benchmarks start them from here.
"""

import asyncio
import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import aiohttp
import tomli_w

from deploy.processes import Process, ProcessError, Startable, free_port
from deploy.simulator.ccxt_config import ccxt_config
from deploy.standin import StandIns
from schemas.config import load
from schemas.runtime import modules
from schemas.status import NOT_OPENED

READY_TIMEOUT_S: Final = 60.0
STOP_GRACE_S: Final = 20.0
# A sample as Prometheus's text format has it, and the values of its labels.
SAMPLE: Final = re.compile(r"^(\w+)(?:\{(.*)\})? (\S+)", re.MULTILINE)
LABEL_VALUE: Final = re.compile(r'="((?:[^"\\]|\\.)*)"')


def simulated(urls: Mapping[str, str], weights: Mapping[str, float] | None = None) -> dict[str, Any]:
    """A configuration whose lanes lead to the simulator.

    Args:
        urls: each exchange's URL at the simulator.
        weights: the lanes' weights; 1 where none is given.
    """
    weights = weights or {}
    return {
        "lanes": {
            name: {"weight": float(weights.get(name, 1.0)), "ccxt": ccxt_config(name, url)}
            for name, url in urls.items()
        }
    }


class Service(Process):
    """A dispatcher, worker or gateway as a child process, with its metrics on a port of its own."""

    def __init__(
        self, argv: Sequence[str], log: Path, env: Mapping[str, str], checkout: Path | None = modules.CHECKOUT
    ) -> None:
        """`argv` runs the service with its configuration, from this checkout."""
        self.metrics_port = free_port()
        argv = [*argv, "--metrics-port", str(self.metrics_port)]
        super().__init__(argv, log=log, env=env, cwd=checkout)
        self.name = log.stem

    @property
    def metrics_url(self) -> str:
        """Where Prometheus finds its metrics."""
        return f"http://127.0.0.1:{self.metrics_port}/metrics"

    async def status(self) -> dict[str, Any]:
        """What its ``/status`` says; empty if it is not up."""
        _, text = await self.ask("status")
        return dict(json.loads(text)) if text else {}

    async def ask(self, page: str) -> tuple[int, str]:
        """A page of its HTTP port, e.g. ``readyz``: the HTTP status and the text; 0 and nothing if it is not up."""
        url = f"http://127.0.0.1:{self.metrics_port}/{page}"
        try:
            async with aiohttp.ClientSession() as session, session.get(url) as answer:
                return answer.status, await answer.text()
        except (aiohttp.ClientError, TimeoutError):
            return 0, ""

    async def metrics(self) -> dict[tuple[str, ...], float]:
        """Its metrics now, by name and label values, e.g. ``("fleet_lane_healthy", "okx")``; empty if it is not up.

        Tests ask many times a second, and prometheus_client's parser takes 6 ms for a worker's page; this one 0.5 ms.
        """
        _, text = await self.ask("metrics")
        return {
            (name, *map(_unescaped, LABEL_VALUE.findall(labels or ""))): float(value)
            for name, labels, value in SAMPLE.findall(text)
        }


def _unescaped(value: str) -> str:
    return re.sub(r"\\(.)", lambda found: "\n" if found[1] == "n" else found[1], value) if "\\" in value else value


class GatewayService(Service):
    """A gateway as a child process."""

    def __init__(self, argv: Sequence[str], log: Path, env: Mapping[str, str], port: int | None = None) -> None:
        """`argv` runs it with its configuration; without a `port` on a free one."""
        self.port = free_port() if port is None else port
        super().__init__([*argv, "--port", str(self.port)], log, env)

    @property
    def url(self) -> str:
        """Where programs reach it."""
        return f"http://127.0.0.1:{self.port}"


class Services(Startable):
    """Dispatchers and workers on a RabbitMQ and a Redis that are there already.

    Args:
        folder: where the configuration and the logs go.
        config: the configuration as TOML would give it, or a file that is taken as it stands; the two URLs win over
            what it says.
        broker_url: RabbitMQ.
        redis_url: Redis.
        dispatchers: how many.
        workers: how many.
        processes: how many processes each worker is, with one parent and one port; None for a worker alone.
        stand_ins: what the exchanges' names resolve to; None leaves names to the system.
        checkout: the folder of another version that is run in place of this one.
    """

    def __init__(
        self,
        folder: Path,
        config: Mapping[str, Any] | Path,
        *,
        broker_url: str,
        redis_url: str,
        dispatchers: int = 1,
        workers: int = 2,
        processes: int | None = None,
        stand_ins: StandIns | None = None,
        checkout: Path | None = modules.CHECKOUT,
    ) -> None:
        self._checkout = checkout
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if isinstance(config, Path):
            self.config_file = config.resolve()
        else:
            self.config_file = folder.resolve() / "fleet.toml"
            self.config_file.write_text(tomli_w.dumps(config), encoding="utf-8")
        self.broker_url = broker_url
        self.processes = processes
        self._env = {**os.environ, "FLEET_BROKER_URL": broker_url, "FLEET_REDIS_URL": redis_url}
        self._env |= stand_ins.env if stand_ins else {}
        words = "--config", str(self.config_file)
        worker = modules.command("deploy.standin_worker", *words) if stand_ins else modules.command("workers", *words)
        worker += [] if processes is None else ["--processes", str(processes)]
        self._argv = {"dispatcher": modules.command("dispatcher", *words), "worker": worker}
        self._gateway_argv = modules.command("schemas.gateway", *words)
        self.lanes = list(load(self.config_file, {}).lanes)
        self.dispatchers: list[Service] = []
        self.workers: list[Service] = []
        self.gateways: list[GatewayService] = []
        self._wanted = dispatchers, workers

    async def start(self) -> None:
        """Starts all and returns when every lane is healthy.

        Raises:
            ProcessError: a service ended, or a lane did not come up within 60 s; with the end of the log.
        """
        dispatchers, workers = self._wanted
        for _ in range(dispatchers):
            self.add_dispatcher()
        for _ in range(workers):
            self.add_worker()
        await self.ready(self.lanes if workers else ())

    def add_dispatcher(self) -> Service:
        """Starts one more dispatcher."""
        return self._add("dispatcher", self.dispatchers)

    def add_worker(self, *words: str) -> Service:
        """Starts one more worker, with these further words."""
        return self._add("worker", self.workers, words)

    async def add_gateway(
        self, port: int | None = None, *, words: Sequence[str] = (), env: Mapping[str, str] | None = None
    ) -> GatewayService:
        """Starts a gateway too, and returns when it serves.

        Args:
            port: where; without one a free one.
            words: more words of its command line.
            env: more variables of its environment.

        Raises:
            ProcessError: it ended, or did not serve within 60 s; with the end of its log.
        """
        log = self.folder / f"gateway-{len(self.gateways) + 1}.log"
        gateway = GatewayService([*self._gateway_argv, *words], log, {**self._env, **(env or {})}, port)
        gateway.start()
        self.gateways.append(gateway)
        await self.serves(gateway)
        return gateway

    async def serves(self, service: Service) -> None:
        """Returns when a service says that it is ready; raises ProcessError if it ends, or after 60 s."""
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
        while (await service.ask("readyz"))[0] != 200:
            if not service.running or asyncio.get_running_loop().time() > deadline:
                raise ProcessError(f"{service.name} does not serve. The end of {service.log}:\n{service.tail()}")
            await asyncio.sleep(0.05)

    async def ready(self, lanes: Sequence[str]) -> None:
        """Waits until every running dispatcher serves and sees these lanes healthy; raises as `start` does."""
        deadline = asyncio.get_running_loop().time() + READY_TIMEOUT_S
        for dispatcher in self.dispatchers:
            while missing := await self._missing(dispatcher, lanes):
                for service in (*self.dispatchers, *self.workers):
                    if not service.running:
                        raise ProcessError(f"{service.name} ended. The end of {service.log}:\n{service.tail()}")
                if asyncio.get_running_loop().time() > deadline:
                    story = "\n".join(f"{service.log}:\n{service.tail()}" for service in (dispatcher, *self.workers))
                    raise ProcessError(f"not up after {READY_TIMEOUT_S:.0f} s: {', '.join(missing)}\n{story}")
                await asyncio.sleep(0.1)

    @staticmethod
    async def _missing(dispatcher: Service, lanes: Sequence[str]) -> list[str]:
        seen = await dispatcher.metrics()
        if not seen:
            return [dispatcher.name]
        return [lane for lane in lanes if not seen.get(("fleet_lane_healthy", lane))]

    async def reasons(self, lanes: Sequence[str]) -> dict[str, str]:
        """Why these lanes are not healthy, by a worker's error, else a dispatcher's reason."""
        served = [lane for worker in self.workers for lane in (await worker.status()).get("lanes", ())]
        routed = [lane for dispatcher in self.dispatchers for lane in (await dispatcher.status()).get("lanes", ())]
        errors = {lane["lane"]: str(lane["error"]) for lane in served if lane["error"] and not lane["open"]}
        reasons = {lane["lane"]: str(lane["reason"]) for lane in routed if lane["reason"]}
        return {name: errors.get(name) or reasons.get(name) or NOT_OPENED for name in lanes}

    async def stop(self) -> None:
        """Stops gateways, workers and dispatchers in order, by force after 20 s."""
        services = (*self.gateways, *self.workers, *self.dispatchers)
        await asyncio.gather(*(service.stop(grace_s=STOP_GRACE_S) for service in services))

    def _add(self, kind: str, services: list[Service], words: Sequence[str] = ()) -> Service:
        log = self.folder / f"{kind}-{len(services) + 1}.log"
        service = Service([*self._argv[kind], *words], log, self._env, self._checkout)
        service.start()
        services.append(service)
        return service
