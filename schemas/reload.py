"""The configuration's file as a process has it in use."""

import hashlib
from pathlib import Path

from .answers import now_ms
from .config import Config, parse
from .errors import ConfigError
from .status import ConfigurationStatus


class ConfigFile:
    """One TOML file and what is in use of it.

    Args:
        path: the file, or a symlink to it.

    Attributes:
        status: what is in use, for the process's status.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.status = ConfigurationStatus("", 0)

    def load(self) -> Config:
        """Reads the file for the start.

        Raises:
            ConfigError: with the file, the key's path and what was expected.
        """
        try:
            body = self._path.read_bytes()
        except OSError as error:
            raise ConfigError(f"{self._path}: can't be read: {error.strerror}") from error
        config = parse(self._path, body)
        self.status = ConfigurationStatus(_version(body), now_ms())
        return config


def _version(body: bytes) -> str:
    return hashlib.sha256(body).hexdigest()[:12]
