"""How much waits in one dispatcher for other requests' answers, and whose it is. Pure.

A caller is a reply address; requests without one are one caller's. Each may have as much here as is still free: one
alone half of it, a second one half of the rest. So however much some have there is room for one more caller.
"""


class Held:
    """What waits.

    Args:
        most: less than so many requests wait at once.
        most_bytes: so many bytes their messages may have together.

    Attributes:
        count: how many wait now.
        size_bytes: how many bytes their messages have.
    """

    def __init__(self, most: int, most_bytes: int) -> None:
        self._most = most
        self._most_bytes = most_bytes
        self.count = self.size_bytes = 0
        self._callers: dict[str, tuple[int, int]] = {}

    def has_room(self, caller: str, size_bytes: int) -> bool:
        """Whether a caller may have one more request of this size here."""
        count, held_bytes = self._callers.get(caller, (0, 0))
        free, free_bytes = self._most - self.count, self._most_bytes - self.size_bytes
        return count < free and held_bytes + size_bytes <= free_bytes

    def take(self, caller: str, size_bytes: int) -> None:
        """A caller's request of this size waits."""
        self._change(caller, 1, size_bytes)

    def give(self, caller: str, size_bytes: int) -> None:
        """One that waited does so no more."""
        self._change(caller, -1, -size_bytes)

    def _change(self, caller: str, count: int, size_bytes: int) -> None:
        self.count += count
        self.size_bytes += size_bytes
        held, held_bytes = self._callers.get(caller, (0, 0))
        if held + count:
            self._callers[caller] = held + count, held_bytes + size_bytes
        else:
            self._callers.pop(caller)
