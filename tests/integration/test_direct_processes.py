"""Charged programs that end without `close`, and that fork."""

import asyncio
import sys

import pytest

from deploy.servers import Redis
from tests.support.exchange_lanes import Answers

BEGIN = """
import asyncio, os, sys
import ccxt as blocking
import ccxt.async_support as ccxt
from workers.direct import charged

settings, redis = eval(sys.argv[1]), sys.argv[2]

async def bot(says):
    made = charged(ccxt.okx(dict(settings)), redis, max_wait_s=12)
    await made.fetch_time()
    print(says, flush=True)
"""
CANCELS = "asyncio.run(bot('first'))\nasyncio.run(bot('second'))\nos._exit(0)\n"
CLOSES = """
for says in ("first", "second"):
    loop = asyncio.new_event_loop()
    loop.run_until_complete(bot(says))
    loop.close()
os._exit(0)
"""
FORKS = """
made = charged(blocking.okx(dict(settings)), redis, max_wait_s=12)
made.fetch_time()
if pid := os.fork():
    os.waitpid(pid, 0)
    made.fetch_time()
    made.close()
    print("parent", flush=True)
else:
    if sys.argv[3] == "uses":
        made.fetch_time()
    made.close()
    print("child", flush=True)
    os._exit(0)
"""
FORKS_ASYNC = """
made = charged(ccxt.okx({**settings, "timeout": 5000}), redis, max_wait_s=12)

async def main():
    await made.fetch_time()
    before = made.egress
    if pid := os.fork():
        await asyncio.to_thread(os.waitpid, pid, 0)
        await made.fetch_time()
        assert made.egress is before
        await made.close()
        print("parent", flush=True)
    else:
        asyncio.run(child(before))  # the parent's loop does not run here

async def child(before):
    if sys.argv[3] == "uses":
        await made.fetch_time()
        assert made.egress is not before
    await made.close()
    print("child", flush=True)
    os._exit(0)

asyncio.run(main())
"""


async def said(program: str, server: Answers, redis_url: str, *words: str) -> list[str]:
    server.answer = 200, {}, '{"code":"0","data":[{"ts":"1"}]}'
    child = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "ignore", "-c", BEGIN + program, repr(server.settings("okx")), redis_url, *words),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(60):
            out, _ = await child.communicate()
    finally:
        if child.returncode is None:
            child.kill()
    return out.decode().split()


@pytest.mark.parametrize("program", [CANCELS, CLOSES], ids=["cancelled", "closed"])
async def test_a_loop_that_ends_without_close_leaves_its_part_to_the_next(
    server: Answers, redis_url: str, redis_server: Redis, program: str
) -> None:
    """Or each run would have the limits set aside for five minutes, of which nothing was left soon."""
    assert await said(program, server, redis_url) == ["first", "second"]


@pytest.mark.parametrize("how", ["uses", "closes"])
@pytest.mark.parametrize("program", [FORKS, FORKS_ASYNC], ids=["blocking", "async"])
async def test_a_fork_leaves_what_is_its_parent_s_alone(
    server: Answers, redis_url: str, program: str, how: str
) -> None:
    assert await said(program, server, redis_url, how) == ["child", "parent"]
