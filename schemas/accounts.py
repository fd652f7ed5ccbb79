"""Accounts at exchanges: where their secrets come from, and a type that keeps secrets out of logs and errors.

The configuration names environment variables or files and never contains a secret itself, so it may be shown, copied
and kept with the code. Only workers read the secrets, when they make a lane.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NoReturn

import msgspec
from msgspec import Struct

from .errors import ConfigError

HIDDEN: Final = "…"
_ONE_PLACE: Final = "expected either env or file"


class Secret:
    """A text that logs, errors and messages can't show; code that needs it calls `reveal`."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        """The secret itself."""
        return self._value

    def __repr__(self) -> str:
        """Shows nothing of it, not even its length."""
        return f"Secret({HIDDEN})"

    __str__ = __repr__

    def __format__(self, _: str) -> str:
        """As in an f-string."""
        return repr(self)

    def __reduce__(self) -> NoReturn:
        """Not pickled: copies would carry it to other processes."""
        raise TypeError("a secret is not pickled")


class SecretSource(Struct, frozen=True, forbid_unknown_fields=True):
    """Where a secret is: in a variable of the environment, or in a file (whose last line end is not part of it)."""

    env: str | None = None
    file: str | None = None

    @property
    def one(self) -> bool:
        """Whether it names one place, and not both or none."""
        return (self.env is None) is not (self.file is None)

    def read(self, environment: Mapping[str, str]) -> Secret:
        """Reads it.

        Raises:
            ConfigError: it is missing or empty; the text says what was looked for, and nothing of what was found.
        """
        if not self.one:
            raise ConfigError(_ONE_PLACE)
        if self.env is not None:
            value = environment.get(self.env, "")
            where = f"the environment variable {self.env}"
        else:
            where = f"the file {self.file}"
            try:
                value = Path(str(self.file)).read_text(encoding="utf-8").rstrip("\r\n")
            except OSError as error:
                raise ConfigError(f"{where} can't be read: {error.strerror}") from None
            except UnicodeDecodeError:
                raise ConfigError(f"{where} is not text") from None
        if not value:
            raise ConfigError(f"{where} is not set" if self.env is not None else f"{where} is empty")
        return Secret(value)


class AccountConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """An account at one exchange, for reads alone: make its key without any other right. Its key here is its name.

    Args:
        api_key: the key's public part.
        secret: the key's secret part.
        password: the key's passphrase, where the exchange has one.
        uid: the user's number, where the exchange wants it.
        private_key: of a wallet, where the exchange is a chain.
        wallet_address: of a wallet.
        token: where the exchange gives one.
    """

    api_key: SecretSource | None = None
    secret: SecretSource | None = None
    password: SecretSource | None = None
    uid: SecretSource | None = None
    private_key: SecretSource | None = None
    wallet_address: SecretSource | None = None
    token: SecretSource | None = None

    @property
    def wrong(self) -> str:
        """What is wrong with it whatever the environment has, behind the account's name; empty if nothing is."""
        sources: dict[str, SecretSource | None] = {key: getattr(self, key) for key in CCXT_NAMES}
        if not any(sources.values()):
            return f": {_NO_KEY}"
        return next((f".{key}: {_ONE_PLACE}" for key, source in sources.items() if source and not source.one), "")

    def credentials(self, name: str, environment: Mapping[str, str] = os.environ) -> dict[str, Secret]:
        """The secrets by ccxt's names for them.

        Args:
            name: the account's name.
            environment: where variables are looked up.

        Raises:
            ConfigError: one is missing; the text says the configuration's key, and where it was looked for.
        """
        found: dict[str, Secret] = {}
        for key, ccxt_name in CCXT_NAMES.items():
            source: SecretSource | None = getattr(self, key)
            if source is None:
                continue
            try:
                found[ccxt_name] = source.read(environment)
            except ConfigError as error:
                raise ConfigError(f"accounts.{name}.{key}: {error}") from None
        if not found:
            raise ConfigError(f"accounts.{name}: {_NO_KEY}")
        return found


# ccxt's name for each key of an account.
CCXT_NAMES: Final = {
    field.name: "".join([field.name.split("_")[0], *(part.title() for part in field.name.split("_")[1:])])
    for field in msgspec.structs.fields(AccountConfig)
}
_NO_KEY: Final = f"expected at least one of {', '.join(CCXT_NAMES)}"
