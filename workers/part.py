"""Which of the configured lanes a worker serves: ``--lanes 'okx*,binance'``. Pure."""

from collections.abc import Collection, Iterable
from fnmatch import fnmatchcase
from typing import Final, Self

from msgspec import Struct

from schemas.errors import ConfigError


class Part(Struct, frozen=True):
    """The lanes whose names fit one of some patterns; all of them where there is none.

    Args:
        patterns: as in a shell: `*` is any text, `?` any sign, `[ab]` one of these.
    """

    patterns: tuple[str, ...] = ()

    @classmethod
    def read(cls, text: str) -> Self:
        """Patterns with commas between them.

        Raises:
            ConfigError: one of them is empty.
        """
        patterns = tuple(word.strip() for word in text.split(","))
        if "" in patterns:
            raise ConfigError(
                f"--lanes {text!r}: expected names of lanes, or patterns as 'okx*', with commas between them"
            )
        return cls(patterns)

    def has(self, lane: str) -> bool:
        """Whether a lane belongs to it."""
        return not self.patterns or any(fnmatchcase(lane, each) for each in self.patterns)

    def of(self, lanes: Iterable[str]) -> list[str]:
        """Those lanes that belong to it, in their order."""
        return [lane for lane in lanes if self.has(lane)]

    def unmatched(self, lanes: Collection[str]) -> list[str]:
        """The patterns that no lane fits."""
        return [each for each in self.patterns if not any(fnmatchcase(lane, each) for lane in lanes)]

    def check(self, lanes: Collection[str]) -> None:
        """Sees whether some lane fits each of the patterns.

        Raises:
            ConfigError: none does.
        """
        if unmatched := self.unmatched(lanes):
            raise ConfigError(f"--lanes {','.join(unmatched)}: fits no lane; there are {', '.join(lanes)}")


ALL: Final = Part()
