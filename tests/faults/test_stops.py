"""Services told to stop at any moment, in short; `python -m tests.faults.stops` is the long run."""

import asyncio
import sys

from schemas.runtime import modules


async def test_a_service_that_is_told_to_stop_ends_whatever_happens_to_redis_and_rabbitmq() -> None:
    """In a process of its own: on the loop of the services."""
    run = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "tests.faults.stops", "--seed", "3", "--rounds", "5"),
        cwd=modules.CHECKOUT,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await run.communicate()
    assert run.returncode == 0, said.decode()[-4000:]
