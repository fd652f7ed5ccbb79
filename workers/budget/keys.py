"""The names of a scope's keys in Redis.

They are ``fleet:{<exchange>}:<egress or account>:<bucket>``: one hash slot per exchange, because one call may be
charged to buckets of its address and of its account. All of them expire.
"""

import hashlib
from collections.abc import Sequence
from typing import Literal, TypeAlias

from ..limits.costs import Charge

# What a pause without buckets is of: an account is meant at all addresses.
Whose: TypeAlias = Literal["address", "account", "both"]


class Keys:
    """The keys of one scope.

    Args:
        scope: ``<exchange>:<egress>``.
        account: names the account, if there is one; neither it nor a proxy's URL gets into a key.
    """

    def __init__(self, scope: str, account: str = "") -> None:
        self.scope = scope
        exchange, _, egress = scope.partition(":")
        self.egress = f"fleet:{{{exchange}}}:{_key_part(egress)}"
        self.has_account = bool(account)
        self.account = f"fleet:{{{exchange}}}:account:{_hashed(account)}" if account else self.egress
        self.clock = f"fleet:{{{exchange}}}:clock"
        self.correction = f"fleet:{{{exchange}}}:set"
        self.met = f"fleet:{{{exchange}}}:met"
        self.epoch = f"{self.egress}:epoch"
        self.spread = f"{self.egress}:spread"
        self.away = f"{self.egress}:away"
        self.members = f"{self.egress}:members"
        self.doubts = f"{self.egress}:doubts"
        # An account's calls also leave from this address, so that the address's pause holds them too.
        self.pauses = [pause_of(self.egress), *([pause_of(self.account)] if account else [])]

    def bucket(self, charge: Charge) -> str:
        """The key of the bucket that is charged."""
        return f"{self.account if charge.bucket.scope == 'account' else self.egress}:{charge.key}"

    def pauses_of(self, charges: Sequence[Charge]) -> list[str]:
        """The pauses that hold up calls with these charges."""
        return [*self.pauses, *(pause_of(self.bucket(charge)) for charge in charges)]

    def to_pause(self, charges: Sequence[Charge], whose: Whose) -> list[str]:
        """The pauses that are set for these buckets alone, or, without any, for address, account or both.

        Without an account the address is meant.
        """
        if charges:
            return [pause_of(self.bucket(charge)) for charge in charges]
        if whose == "both":
            return self.pauses
        return self.pauses[:1] if whose == "address" else self.pauses[-1:]

    def trips(self, span: int) -> str:
        """The fastest round trips of one span of time."""
        return f"{self.egress}:trips:{span}"


def pause_of(key: str) -> str:
    """The pause of one bucket alone, of an address, or of an account."""
    return f"{key}:pause"


def learned_of(key: str) -> str:
    """What was learned of a bucket beside its table."""
    return f"{key}:learned"


def _key_part(name: str) -> str:
    """A proxy's URL may hold a password, and braces would move the hash slot: neither goes into a key."""
    return _hashed(name) if set(name) & set("@{}/") else name


def _hashed(name: str) -> str:
    return hashlib.sha256(name.encode()).hexdigest()[:16]
