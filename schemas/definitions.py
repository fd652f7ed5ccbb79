"""The fleet as RabbitMQ definitions: its topology, and a user for each role with the least permissions it needs.

``ccxt-fleet definitions --config deploy/fleet.toml`` writes them, ``rabbitmqctl import_definitions`` loads them.
Services that run as these users declare nothing (`broker.declare = false`).

Permissions are RabbitMQ's: what a user may configure, write to and read from, each a pattern over the names of queues
and exchanges (rabbitmq.com, "Authentication, Authorisation, Access Control"). They can't tell apart queues behind one
exchange: a user that may publish results to reply queues may write to the default exchange, and so into any queue.
"""

import re
from collections.abc import Iterable
from typing import Any, Final

from . import topology

# Queues that RabbitMQ names: those of producers for their results, of dispatchers for reports.
_OWN: Final = r"amq\.gen-.*"
# Queues of producers that outlive their connections.
_RESULTS: Final = rf"{re.escape(topology.CLIENT)}\..*"
_REQUESTS: Final = r"fleet\.requests(\.bulk)?"
_WORK: Final = r"fleet\.work\..*"
_ANY_QUEUE: Final = r"amq\.default"

# Role: what it may configure, write to, read from.
ROLES: Final[dict[str, tuple[list[str], list[str], list[str]]]] = {
    "fleet-producer": (
        [_OWN, _RESULTS],
        [_OWN, _RESULTS, _REQUESTS],
        [_OWN, _RESULTS, r"fleet\.results"],
    ),
    "fleet-dispatcher": (
        [_OWN],
        [_OWN, _ANY_QUEUE, r"fleet\.work", r"fleet\.results"],
        [_OWN, _WORK, _REQUESTS, r"fleet\.returned", r"fleet\.reports", r"fleet\.dropped"],
    ),
    "fleet-worker": (
        [],
        [_ANY_QUEUE, r"fleet\.results", r"fleet\.reports"],
        [_WORK],
    ),
    "fleet-operator": (
        [r"fleet\..*"],
        [_ANY_QUEUE, r"fleet\..*"],
        [r"fleet\..*"],
    ),
}


def definitions(lanes: Iterable[str], vhost: str = "/") -> dict[str, Any]:
    """The definitions of a fleet with these lanes, in one virtual host.

    The users have no password: nobody can log in before an operator has set one (``rabbitmqctl change_password``).
    """
    queues = topology.queues(lanes)
    return {
        "vhosts": [{"name": vhost}],
        "users": [
            {
                "name": name,
                "password_hash": "",
                "hashing_algorithm": "rabbit_password_hashing_sha256",
                "tags": ["monitoring"] if name == "fleet-operator" else [],
            }
            for name in ROLES
        ],
        "permissions": [
            {
                "user": name,
                "vhost": vhost,
                "configure": _pattern(configure),
                "write": _pattern(write),
                "read": _pattern(read),
            }
            for name, (configure, write, read) in ROLES.items()
        ],
        "exchanges": [
            {
                "name": exchange.name,
                "vhost": vhost,
                "type": exchange.kind,
                "durable": True,
                "auto_delete": False,
                "internal": False,
                "arguments": {},
            }
            for exchange in topology.EXCHANGES
        ],
        "queues": [
            {"name": queue.name, "vhost": vhost, "durable": True, "auto_delete": False, "arguments": queue.arguments}
            for queue in queues
        ],
        "bindings": [
            {
                "source": queue.exchange,
                "vhost": vhost,
                "destination": queue.name,
                "destination_type": "queue",
                "routing_key": queue.routing_key,
                "arguments": {},
            }
            for queue in queues
            if queue.exchange
        ],
    }


def _pattern(names: list[str]) -> str:
    return f"^({'|'.join(names)})$" if names else "^$"
