"""What keeps the budgets: Redis as this machine has it, and Valkey from a wheel.

A module marked `both_stores` runs on both.
"""

from pathlib import Path
from typing import Any, Final

import redis.asyncio

from deploy.servers import REDIS_PROGRAMS, find_program, packed_valkey
from workers.budget.keys import Keys

# Their programs; None where the machine has none: `Redis` takes Docker's then.
STORES: Final[dict[str, Path | None]] = {"redis": find_program(*REDIS_PROGRAMS), "valkey": packed_valkey()}


async def known_here(client: redis.asyncio.Redis, *exchanges: str) -> None:
    """Makes this Redis one that workers have used before: in one that may have been emptied they wait for others first.

    Args:
        client: on it.
        exchanges: those whose budgets it had.
    """
    server: Any = await client.info("server")
    for exchange in exchanges:
        await client.set(Keys(f"{exchange}:1").met, server["run_id"], ex=3600)
