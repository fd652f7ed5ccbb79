"""Builds the images on a Debian root, and runs the whole fleet in them: `make images`. Needs root and two programs.

No registry is asked: the base is what mmdebstrap makes. Each process runs in its image's own file system, mounted
read-only, as the image's user, by the image's own entry point. It has to be healthy by the image's own check.
"""

import argparse
import asyncio
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import AsyncExitStack
from datetime import timedelta
from pathlib import Path
from typing import Any, Final

import aiohttp
import ccxt.async_support as ccxt  # pyright: ignore[reportMissingTypeStubs]
import tomli_w

from deploy.local import simulated
from deploy.processes import Process, free_port
from deploy.servers import RabbitMQ, Redis
from deploy.simulator.__main__ import USUAL
from schemas.client.fleet import Fleet
from tests.support.fleet import wait_until
from tests.support.signed import keys

ROOT: Final = Path(__file__).resolve().parents[2]
ROLES: Final = ("dispatcher", "worker", "gateway", "simulator")
BASE: Final = "localhost/fleet-base"
TOKEN: Final = "images-token"
# A gateway that takes signed calls has the worker's image, and so the port that its check asks: docs/deploy.md.
SIGNED: Final = "python -P -m ccxt_fleet.gateway --metrics-port 9102 --metrics-address 0.0.0.0"
CERTIFICATES: Final = Path("/etc/ssl/certs/ca-certificates.crt")
# As an image runs with --read-only: its root can't be written to, and it sees this machine's processes and network.
IN_IMAGE: Final = """
set -eu
root=$1 config=$2 user=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount --rbind /proc "$root/proc"
mount --rbind /dev "$root/dev"
if [ -n "$config" ]; then
    mkdir -p "$root/etc/fleet"
    mount --bind "$config" "$root/etc/fleet"
fi
mount -o remount,ro,bind "$root"
exec chroot --userspec "$user" "$root" "$@"
"""


class Image:
    """One image, in buildah's storage below a folder."""

    def __init__(self, folder: Path, role: str) -> None:
        self.role = role
        self._folder = folder
        self.name = f"ccxt-fleet-{role}"
        self.root = Path()
        self._config: dict[str, Any] = {}

    def build(self) -> None:
        """Builds it."""
        words = [
            "bud",
            "--layers",
            "--isolation",
            "chroot",
            "--format",
            "docker",
            "--pull-never",
            "--build-arg",
            f"PYTHON={BASE}",
        ]
        files = ["--ignorefile", "deploy/images/Dockerfile.dockerignore", "--file", "deploy/images/Dockerfile"]
        buildah(self._folder, *words, *files, "--target", self.role, "--tag", self.name, ".")
        about = json.loads(buildah(self._folder, "inspect", "--type", "image", self.name))
        self._config = about["Docker"]["config"]
        container = buildah(self._folder, "from", "--pull-never", self.name).strip()
        self.root = Path(buildah(self._folder, "mount", container).strip())

    def process(
        self, log: Path, config: Path | None = None, *, entry: Sequence[str] = (), **environment: str
    ) -> Process:
        """The image's own entry point, or another, and the image's words, in it."""
        return Process(
            self._argv([*(entry or self._config["Entrypoint"]), *(self._config["Cmd"] or ())], config, environment),
            log=log,
            env={"PATH": os.environ["PATH"]},
        )

    def healthy(self) -> bool:
        """What the image's own check says."""
        kind, *words = self._config["Healthcheck"]["Test"]
        assert kind == "CMD"
        return subprocess.run(self._argv(words, None, {}), check=False, capture_output=True).returncode == 0

    def run(self, *words: str) -> str:
        """Runs a command in it, and returns what that prints."""
        return subprocess.run(self._argv(words, None, {}), check=True, capture_output=True, text=True).stdout

    def _argv(self, words: Sequence[str], config: Path | None, environment: dict[str, str]) -> list[str]:
        env = [*self._config["Env"], *(f"{name}={value}" for name, value in environment.items())]
        enter = ["unshare", "--mount", "sh", "-c", IN_IMAGE, "sh", str(self.root), str(config or "")]
        return [*enter, self._config["User"], "/usr/bin/env", "-i", *env, *words]


def buildah(folder: Path, *words: str) -> str:
    """Runs buildah on a storage of its own; raises CalledProcessError after it has said why."""
    storage = ["--storage-driver", "vfs", "--root", str(folder / "store"), "--runroot", str(folder / "run")]
    ran = subprocess.run(["buildah", *storage, *words], cwd=ROOT, text=True, stdout=subprocess.PIPE, check=True)
    return ran.stdout


def make_base(folder: Path) -> None:
    """Makes the image that all are built on: Debian's Python and nothing else."""
    file = folder / "base.tar"
    python = 'ln -s python3 "$1/usr/bin/python"'
    trust = f'cp {CERTIFICATES} "$1{CERTIFICATES}"'
    words = ["--quiet", "--variant=minbase", "--include=python3,python3-venv,ca-certificates"]
    hooks = [f"--customize-hook={hook}" for hook in (python, trust)]
    suite = subprocess.run(
        ["sh", "-c", ". /etc/os-release; echo $VERSION_CODENAME"], check=True, capture_output=True, text=True
    )
    subprocess.run(["mmdebstrap", *words, *hooks, suite.stdout.strip(), str(file)], check=True)
    container = buildah(folder, "from", "scratch").strip()
    buildah(folder, "add", "--quiet", container, str(file), "/")
    buildah(folder, "commit", "--quiet", container, BASE)
    buildah(folder, "rm", container)


def look_inside(images: dict[str, Image]) -> None:
    """What is in them, and what is not."""
    for role, image in images.items():
        bom = json.loads(image.run("cat", "/opt/fleet/sbom.cdx.json"))
        names = {part["name"]: part["version"] for part in bom["components"]}
        assert ("ccxt" in names) == (role == "worker"), role
        has_ccxt = "import importlib.util; print(bool(importlib.util.find_spec('ccxt')))"
        assert image.run("python", "-P", "-c", has_ccxt).strip() == str(role == "worker"), role
        assert image.run("id", "-u").strip() == "10001", role
        wrote = image.run("sh", "-c", "touch /opt/fleet/x /tmp/x 2>&1 || true")
        assert wrote.count("Read-only file system") == 2, wrote
        print(f"{role}: {len(names)} distributions, user 10001, nothing can be written", flush=True)


async def ask_gateway(gateway: str, simulator: str) -> None:
    """A read by ccxt's name and a raw path: both are answered by the simulated exchange, to whoever has the token."""
    path = "/api/v5/public/instruments?instType=SPOT"
    raw, read = f"/okx/www.okx.com{path}", "/v1/fetch_ticker?symbol=BTC/USDT&exchanges=okx"
    async with aiohttp.ClientSession() as session:
        async with session.get(gateway + raw) as answer:
            assert answer.status == 401, await answer.text()
        headers = {"Authorization": f"Bearer {TOKEN}", "Prefer": "wait=60"}
        async with session.get(gateway + read, headers=headers) as answer:
            result = await answer.json()
            assert (answer.status, result["exchange"]) == (200, "okx"), result
            print(f"gateway: BTC/USDT {result['data']['last']}", flush=True)
        async with session.get(gateway + raw, headers=headers) as answer:
            body = await answer.read()
            assert (answer.status, answer.headers["X-Fleet-Lane"]) == (200, "okx"), body
        async with session.get(simulator + path) as answer:
            assert await answer.read() == body
            print(f"gateway: {path} to the letter, {len(body)} bytes", flush=True)


async def sign_in(folder: Path, worker: Image, config: dict[str, Any], where: dict[str, str]) -> None:
    """A gateway in the worker's image, after the worker has left its ports: it sends an order that ccxt has signed."""
    signed = folder / "signed"
    signed.mkdir()
    gateway = {**config["gateway"], "signed": True}
    (signed / "fleet.toml").write_text(tomli_w.dumps({**config, "gateway": gateway}), encoding="utf-8")
    process = worker.process(folder / "signed.log", signed, entry=SIGNED.split(), FLEET_GATEWAY_TOKEN=TOKEN, **where)
    api = {"rest": f"http://127.0.0.1:{gateway['port']}/okx/www.okx.com"}
    spot = {"fetchMarkets": {"types": ["spot"]}}
    okx: Any = ccxt.okx
    more = {"urls": {"api": api}, "options": spot, "headers": {"X-Fleet-Token": TOKEN}}
    program = okx({**keys(), "enableRateLimit": False, **more})
    try:
        process.start()
        await wait_until(worker.healthy, "the worker's image, as a gateway, is healthy", timeout_s=90, every_s=0.5)
        order = await program.create_order("BTC/USDT", "limit", "buy", 0.001, 10_000)
        print(f"gateway in the worker's image: signed order {order['id']}", flush=True)
        await leave("gateway in the worker's image", process)
    finally:
        await program.close()
        process.kill()


async def leave(name: str, process: Process) -> None:
    """Ends a process by SIGTERM, in order."""
    await process.stop(grace_s=20)
    assert process.exit_code == 0, f"{name} ended with {process.exit_code}:\n{process.tail()}"
    print(f"{name}: left in order after SIGTERM", flush=True)


async def run_fleet(images: dict[str, Image], folder: Path) -> None:
    """The whole fleet in its images: every exchange answers, all are healthy, all leave in order."""
    config = folder / "config"
    config.mkdir()
    urls = {name: f"http://127.0.0.1:{9200 + number}" for number, name in enumerate(USUAL, 1)}
    # As in containers: it listens on every address, and so wants a token, which the other processes don't have.
    gateway = {"address": "0.0.0.0", "port": free_port(), "tokens": {"local": {"env": "FLEET_GATEWAY_TOKEN"}}}
    fleet_toml = {**simulated(urls), "gateway": gateway}
    (config / "fleet.toml").write_text(tomli_w.dumps(fleet_toml), encoding="utf-8")
    async with AsyncExitStack() as stack:
        rabbitmq = await stack.enter_async_context(RabbitMQ(folder / "rabbitmq"))
        redis = await stack.enter_async_context(Redis(folder / "redis"))
        where = {"FLEET_BROKER_URL": rabbitmq.url, "FLEET_REDIS_URL": redis.url}
        processes = {
            "simulator": images["simulator"].process(folder / "simulator.log"),
            "dispatcher": images["dispatcher"].process(folder / "dispatcher.log", config, **where),
            "worker": images["worker"].process(folder / "worker.log", config, **where),
            "gateway": images["gateway"].process(folder / "gateway.log", config, FLEET_GATEWAY_TOKEN=TOKEN, **where),
        }
        for process in processes.values():
            stack.callback(process.kill)
            process.start()
        for role, image in images.items():
            await wait_until(image.healthy, f"{role} is healthy by its own check", timeout_s=90, every_s=0.5)
        async with Fleet(rabbitmq.url) as fleet:
            for name in USUAL:
                ticker = await fleet.fetch_ticker("BTC/USDT", exchanges=[name], deadline=timedelta(seconds=60))
                print(f"{name}: BTC/USDT {ticker['last']}", flush=True)
        await ask_gateway(f"http://127.0.0.1:{gateway['port']}", urls["okx"])
        for role in ("gateway", "worker"):
            await leave(role, processes[role])
        await sign_in(folder, images["worker"], fleet_toml, where)
        for role in ("dispatcher", "simulator"):
            await leave(role, processes[role])


def main() -> int:
    """Builds and runs; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keep", type=Path, help="build below this folder, and leave the images there")
    keep: Path | None = parser.parse_args().keep
    missing = [name for name in ("buildah", "mmdebstrap", "unshare") if shutil.which(name) is None]
    if missing or os.geteuid() != 0:
        print(f"this needs root, and: {' '.join(missing) or 'nothing else'}", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory(prefix="ccxt-fleet-images-") as temporary:
        folder = keep or Path(temporary)
        folder.mkdir(parents=True, exist_ok=True)
        make_base(folder)
        images = {role: Image(folder, role) for role in ROLES}
        try:
            for image in images.values():
                image.build()
            look_inside(images)
            logs = folder / "logs"
            logs.mkdir(exist_ok=True)
            asyncio.run(run_fleet(images, logs))
        finally:
            buildah(folder, "umount", "--all")
    return 0


if __name__ == "__main__":
    sys.exit(main())
