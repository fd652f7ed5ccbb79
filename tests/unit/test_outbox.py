"""Reply queues that are passed over: for how long, and why."""

from schemas.runtime.outbox import REFUSED, SILENT, ReplyQueue


async def test_a_queue_that_takes_a_result_is_passed_over_no_more_whatever_it_was_before() -> None:
    sink = ReplyQueue()
    assert not sink.aside()
    sink.is_silent(lambda: True)
    assert (sink.aside(), sink.why) == (True, SILENT)
    sink.takes()  # one that was sent beside the one that it does not confirm
    assert (sink.aside(), sink.why) == (False, "")
    sink.refuses()
    assert (sink.aside(), sink.why) == (True, REFUSED)
    sink.takes()
    assert (sink.aside(), sink.why) == (False, "")
