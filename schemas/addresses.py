"""Reply addresses: which ones a result can be published to, and the form of those for RabbitMQ's direct reply-to.

A direct address is ``amq.rabbitmq.reply-to.<process>.<key>``, both parts in base64. The process is an Erlang pid of the
client's channel in the external term format (NEW_PID_EXT of the Erlang documentation): two bytes of tags, the name of
its node, and three numbers of 32 bits, the id, the serial and the node's creation. RabbitMQ puts a hash in the place of
the node's name, ``reply@<number>``. The key is 16 random bytes. So it is in RabbitMQ 3.10.8 and 4.0.5
(`rabbit_direct_reply_to`, `pid_recomposition`) and in 4.3 (`rabbit_volatile_queue`, `rabbit_pid_codec`).

RabbitMQ before 4.2 decodes the pid without checking it, and closes the whole connection with INTERNAL_ERROR where it is
none. Before 4.0 it does that also where no running node has that hash.
"""

import base64
import functools
import re
import struct
from typing import Final

from . import topology

# Not a queue: mandatory messages to it are delivered and returned as unroutable as well.
DIRECT: Final = "amq.rabbitmq.reply-to"
# The external term format's version, a pid with 32 bits for each number, an atom in UTF-8 with 16 bits for its length.
_HEAD: Final = bytes((131, 88, 118))
_NUMBERS: Final = struct.Struct(">III")
_KEY_BYTES: Final = 16
# Erlang's phash2 gives 27 bits.
_NODE: Final = re.compile(rb"reply@(0|[1-9][0-9]{0,8})")
# Above these bits a pid may be invalid for the node that decodes it (Erlang 25), though others of its node are valid.
_ID_BITS, _SERIAL_BITS = 15, 13
# Queues that the fleet itself consumes, by name and by prefix.
_OURS: Final = frozenset({topology.REQUESTS, topology.BULK_REQUESTS, topology.RETURNED, topology.DEAD})
_OURS_BEGIN: Final = (f"{topology.WORK}.", f"{topology.DELAY}.")


def is_direct(address: str) -> bool:
    """Whether an address is for direct reply-to, well-formed or not: no queue can have such a name."""
    return address.startswith(DIRECT)


def refusal(address: str) -> str:
    """Why no result can be published to an address, in words for its producer; empty if its form is right."""
    if address in _OURS or address.startswith(_OURS_BEGIN):
        return f"reply_to {address!r} is a queue of the fleet's own; name one of yours, or leave it out"
    if not is_direct(address):
        return ""
    if address == DIRECT:
        return f"reply_to {address!r} was not filled in by RabbitMQ: publish over AMQP, on the channel that consumes it"
    if _pid(address) is None:
        return f"reply_to {address!r} is no address of RabbitMQ's direct reply-to; publish with {DIRECT!r} as it is"
    return ""


def origin(address: str) -> str:
    """The origin of a well-formed direct address: if RabbitMQ can decode one address of an origin, it can decode all.

    This is the node that the address names; for a pid that may be invalid, the whole address.
    """
    pid = _pid(address)
    assert pid is not None
    node, (number, serial, creation) = pid
    return address if number >> _ID_BITS or serial >> _SERIAL_BITS else f"{node} {creation}"


@functools.lru_cache(maxsize=1_000)
def _pid(address: str) -> tuple[str, tuple[int, int, int]] | None:
    """The node and the numbers in a direct address's pid; None where it is not well-formed."""
    pid, dot, key = address.removeprefix(f"{DIRECT}.").partition(".")
    try:
        pid_bytes, key_bytes = _decoded(pid), _decoded(key)
    except ValueError:
        return None
    numbers_at = len(pid_bytes) - _NUMBERS.size
    node = pid_bytes[len(_HEAD) + 2 : max(numbers_at, 0)]
    head = _HEAD + len(node).to_bytes(2)
    if not dot or len(key_bytes) != _KEY_BYTES or not pid_bytes.startswith(head) or not _NODE.fullmatch(node):
        return None
    return node.decode(), _NUMBERS.unpack_from(pid_bytes, numbers_at)


def _decoded(text: str) -> bytes:
    """Decodes base64; raises ValueError where RabbitMQ would have encoded the same bytes in another way."""
    data = base64.b64decode(text.encode(), validate=True)
    if base64.b64encode(data).decode() != text:
        raise ValueError(text)
    return data
