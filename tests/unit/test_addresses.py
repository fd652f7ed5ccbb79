"""Which reply addresses a result can be published to. What RabbitMQ makes of them: `test_reply_addresses`."""

import base64
import string
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import addresses, topology
from schemas.runtime.amqp.direct import KEPT, Origins

# As RabbitMQ 3.10.8 gave it to a client.
REAL = "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA0Njg0NzcwMAAAArAAAAAAawtUQA==.SpsiLgK0KhOD52JvSpGkvw=="
# From the README of RabbitMQ's own AMQP 1.0 client for Python, with RabbitMQ 4.2; its key is cut off there.
REAL_4_2 = "amq.rabbitmq.reply-to.g1h2AA5yZXBseUA2ODc4MTMzNAAAcEoAAAAAaS8eQg==.SpsiLgK0KhOD52JvSpGkvw=="
NUMBERS = st.integers(0, 2**32 - 1)


def direct(node: str = "reply@46847700", number: int = 688, serial: int = 0, creation: int = 7) -> str:
    """A well-formed direct address; see `addresses`."""
    name = node.encode()
    pid = bytes((131, 88, 118)) + struct.pack(">H", len(name)) + name + struct.pack(">III", number, serial, creation)
    return f"amq.rabbitmq.reply-to.{base64.b64encode(pid).decode()}.{base64.b64encode(bytes(16)).decode()}"


@pytest.mark.parametrize("address", [REAL, REAL_4_2, direct()])
def test_what_rabbitmq_gives_its_clients_is_taken(address: str) -> None:
    assert addresses.refusal(address) == ""


@given(st.integers(0, 2**27 - 1), NUMBERS, NUMBERS, NUMBERS, st.binary(min_size=16, max_size=16))
def test_every_pid_and_key_is_taken(node: int, number: int, serial: int, creation: int, key: bytes) -> None:
    pid = direct(f"reply@{node}", number, serial, creation).split(".")[3]
    assert addresses.refusal(f"amq.rabbitmq.reply-to.{pid}.{base64.b64encode(key).decode()}") == ""


@given(st.text(string.ascii_letters + string.digits + "+/=.@- \n\0é", max_size=100))
def test_made_up_ends_are_refused(text: str) -> None:
    assert "reply_to" in addresses.refusal(f"amq.rabbitmq.reply-to{text}")


@given(st.integers(0, len(REAL) - 1), st.sampled_from(["", "A", ".", "\n", "=", "é"]), st.booleans())
def test_a_changed_address_is_refused_or_another_one_as_well_formed(place: int, put: str, instead: bool) -> None:
    changed = REAL[:place] + put + REAL[place + instead :]
    if addresses.is_direct(changed) and not addresses.refusal(changed):
        head, pid, key = changed.rsplit(".", 2)
        assert head == "amq.rabbitmq.reply-to"
        assert (len(pid), len(key)) == (len(REAL.split(".")[3]), len(REAL.split(".")[4]))
        assert base64.b64decode(pid).startswith(b"\x83Xv\x00\x0ereply@")


MALFORMED = {
    "not filled in": "amq.rabbitmq.reply-to",
    "nothing behind": "amq.rabbitmq.reply-to.",
    "one part": "amq.rabbitmq.reply-to.abc",
    "no pid": "amq.rabbitmq.reply-to.a.b",
    "base64 of no pid": "amq.rabbitmq.reply-to.aGVsbG8=.aGVsbG8=",
    "another term": "amq.rabbitmq.reply-to.g2sABWhlbGxv.SpsiLgK0KhOD52JvSpGkvw==",
    "without a key": REAL.rsplit(".", 1)[0],
    "an empty key": REAL.rsplit(".", 1)[0] + ".",
    "a short key": REAL.rsplit(".", 1)[0] + ".eA==",
    "a third part": REAL + ".eA==",
    "a line break": REAL + "\n",
    "a space": REAL.replace("reply-to.", "reply-to. "),
    "not padded": REAL.rstrip("="),
    "another way to write the same": REAL[:-3] + "x==",
    "no number for the node": direct("reply@abc"),
    "no number at all": direct("reply@"),
    "another prefix": direct("rabbit@46847700"),
    "a sign": direct("reply@+46847700"),
    "a zero before it": direct("reply@046847700"),
    "beyond a hash": direct("reply@1346847700000"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_what_is_no_direct_address_is_refused(case: str) -> None:
    assert "reply_to" in addresses.refusal(MALFORMED[case])


def test_the_fleet_s_own_queues_are_refused_and_all_others_taken() -> None:
    for queue in topology.queues(["okx", "binance.eu1"]):
        # Results that lie among the results are where they belong.
        assert bool(addresses.refusal(queue.name)) is (queue.name != topology.RESULTS)
    for name in ("", "mine", "fleet", "fleet.mine", "fleet.requests.mine", "fleet.workshop", "amq.gen-x", "x" * 255):
        assert addresses.refusal(name) == ""


def test_clients_of_one_node_have_one_origin_and_what_may_be_no_pid_has_its_own() -> None:
    assert addresses.origin(direct(number=688)) == addresses.origin(direct(number=700, serial=3))
    others = [
        direct("reply@1"),
        direct(creation=8),
        direct(number=2**15),
        direct(number=2**15 + 1),
        direct(serial=2**13),
    ]
    assert len({addresses.origin(each) for each in [direct(), *others]}) == len(others) + 1


def test_origins_are_bounded_and_expire() -> None:
    origins = Origins(kept_s=float("inf"))
    for number in range(KEPT + 10):
        origins.add(f"{number}")
    assert len(origins) == KEPT
    assert "9" not in origins
    assert "10" in origins
    origins.discard("10")
    assert "10" not in origins
    expired = Origins(kept_s=0.0)
    expired.add("x")
    assert "x" not in expired
