"""A connection to a Redis that hangs is given up without an error."""

from typing import Any
from urllib.parse import urlsplit

from schemas.runtime import store
from tests.support.tcp_proxy import Proxy


async def test_a_redis_that_hangs_stops_nobody_from_leaving(redis_url: str) -> None:
    async with Proxy.before(urlsplit(redis_url).port or 0) as proxy:
        client = store.connect(f"redis://127.0.0.1:{proxy.port}/0", timeout_s=0.1)
        assert await client.ping()
        pool: Any = client.connection_pool
        connection: Any = await pool.get_connection()
        proxy.freeze()
        assert connection._writer is not None
        connection._writer.write(b"x" * 64 * 2**20)
        await pool.release(connection)
        await client.aclose()
        assert not connection.is_connected
        proxy.cut()
        proxy.thaw()
