"""The configuration's file: loaded when a process starts, and watched for changes from then on."""

import asyncio
import contextlib
import hashlib
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from msgspec.structs import replace

from ..config import Config, parse
from ..errors import BrokerError, ConfigError, FleetError
from ..status import ConfigurationStatus
from .results import now_ms

log = logging.getLogger(__name__)

LOOK_EVERY_S: Final = 1.0
# A file that is being written is read again after so long, until it stays the same: half of one may be valid.
SETTLE_S: Final = 0.1


class ConfigFile:
    """One TOML file, and the configuration from it that is in use.

    The whole file is read and compared. Neither its modification time nor inotify would be right for all of an editor's
    rename, a Kubernetes ConfigMap's symlinks, and a network file system; and it has only a few kilobytes.

    Args:
        path: the file, or a symlink to it.

    Attributes:
        status: the configuration in use, for ``/status``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self._config: Config | None = None
        self._refused = ""
        self.status = ConfigurationStatus("", 0)

    def load(self) -> Config:
        """Reads the file for the start.

        Raises:
            ConfigError: with the file, the key's path and what was expected.
        """
        body = self._read()
        self._config = parse(self._path, body)
        self.status = ConfigurationStatus(_version(body), now_ms())
        return self._config

    async def follow(self, apply: Callable[[Config], Awaitable[None]], asked: asyncio.Event) -> None:
        """Applies changes of the file, until cancelled.

        Args:
            apply: takes over another configuration, all of it or nothing; raises ConfigError to refuse it.
            asked: set to have the file read now.
        """
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LOOK_EVERY_S):
                    await asked.wait()
            again = asked.is_set()
            asked.clear()
            await self._look(apply, again=again)

    async def _look(self, apply: Callable[[Config], Awaitable[None]], *, again: bool) -> None:
        """Applies the file if it has changed; with `again` also if not, as files that it refers to may have changed."""
        version = ""
        try:
            body = self._read()
            version = _version(body)
            if version in (self.status.version, self._refused) and not again:
                if version == self.status.version and self.status.error:
                    self.status = replace(self.status, error="", error_ms=None)
                    log.info("configuration_restored", extra={"version": version})
                return
            await asyncio.sleep(SETTLE_S)
            if self._read() != body:
                return
            config = self._changed(body)
            await apply(config)
        except BrokerError as error:
            if self.status.error != str(error):
                self.status = replace(self.status, error=str(error), error_ms=now_ms())
                log.warning("configuration_postponed", extra={"version": version, "why": str(error)})
        except FleetError as error:
            if again or self.status.error != str(error) or version != self._refused:
                self.status = replace(self.status, error=str(error), error_ms=now_ms())
                log.warning("configuration_refused", extra={"version": version, "why": str(error)})
            self._refused = version
        else:
            self._config, self._refused = config, ""
            self.status = ConfigurationStatus(version, now_ms())
            log.info("configuration_loaded", extra={"version": version})

    def _changed(self, body: bytes) -> Config:
        config = parse(self._path, body)
        assert self._config is not None
        for section in ("broker", "redis"):
            if getattr(config, section) != getattr(self._config, section):
                raise ConfigError(f"{self._path}: {section} can't change while this process runs: restart it")
        return config

    def _read(self) -> bytes:
        try:
            return self._path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{self._path}: can't be read: {error.strerror}") from error


def _version(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:12]
