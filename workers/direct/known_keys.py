"""Which keys an exchange has accepted, of the calls that a lane sends for others. Pure.

Anybody can write a key into a call. One who invents keys would be held back by no limit of accounts, and could have the
exchange shut the address out. So calls of keys that no good answer has come for are charged to one account more, which
they have in common, beside their own.
"""

from typing import Final

# So many are remembered, the last used ones. One that was forgotten begins anew.
KEPT: Final = 1024


class KnownKeys:
    """The keys that one exchange has accepted, as far as this process has seen."""

    def __init__(self) -> None:
        self._accepted: dict[str, None] = {}  # the last used ones last

    def __contains__(self, key: str) -> bool:
        """Whether it has accepted this one."""
        return key in self._accepted

    def __len__(self) -> int:
        """How many it remembers."""
        return len(self._accepted)

    def accept(self, key: str) -> None:
        """A good answer came for it."""
        self._accepted.pop(key, None)
        self._accepted[key] = None
        while len(self._accepted) > KEPT:
            del self._accepted[next(iter(self._accepted))]
