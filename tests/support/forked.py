"""What tests of ``worker --processes N`` share: the fleet, and which processes there are."""

from pathlib import Path

from deploy.local import Service, Services
from tests.support.fleet import wait_until


def children(pid: int) -> list[int]:
    """The processes that a process has started and not yet waited for, ended or not."""
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()]


def there(pid: int) -> bool:
    """Whether a process runs."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(") ")[2][0] != "Z"
    except OSError:
        return False


def threads(pid: int) -> int:
    """How many threads a process has."""
    return len(list(Path(f"/proc/{pid}/task").iterdir()))


def files(pid: int) -> list[str]:
    """What a process has open, as ``socket:[1234]``."""
    return [str(each.readlink()) for each in Path(f"/proc/{pid}/fd").iterdir()]


def tcp_sockets() -> set[str]:
    """The inodes of all TCP sockets (proc(5))."""
    return {line.split()[9] for line in Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]}


async def pids(worker: Service) -> dict[int, int]:
    """The worker processes' ids by their numbers; those that are there."""
    return {each["process"]: each["pid"] for each in (await worker.status()).get("workers", ()) if each["pid"]}


async def all_opened(fleet: Services, worker: Service, count: int) -> None:
    """Returns when each of so many processes has opened all lanes."""

    async def all_open() -> bool:
        seen = await worker.metrics()
        return all(
            seen.get(("fleet_lane_open", str(number), lane)) for number in range(1, count + 1) for lane in fleet.lanes
        )

    await wait_until(all_open, "all processes have opened all lanes", timeout_s=90, every_s=0.1)
