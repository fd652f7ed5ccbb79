"""Logs of the services: one event name and its key-value pairs on a line, on standard error.

``log.info("lane_state", extra={"lane": "okx", "state": "offline"})`` becomes
``2026-01-31T12:00:00.123Z INFO dispatcher.service lane_state lane=okx state=offline``.
"""

import logging
import time
from typing import Final

# The attributes that every LogRecord has; all others came through `extra`.
_OWN: Final = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "taskName"}


class KeyValueFormatter(logging.Formatter):
    """Event name first, then what `extra` carried.

    Args:
        process: which of several processes that write to one log this is; empty for the only one.
    """

    def __init__(self, process: str = "") -> None:
        super().__init__()
        self._process = f" process={process}" if process else ""

    def format(self, record: logging.LogRecord) -> str:
        """One line, and a traceback below it where there is one."""
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        pairs = "".join(f" {key}={_quoted(value)}" for key, value in record.__dict__.items() if key not in _OWN)
        event = f"{record.levelname} {record.name} {record.getMessage()}"
        line = f"{stamp}.{int(record.msecs):03d}Z {event}{pairs}{self._process}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


def _quoted(value: object) -> str:
    text = str(value)
    # Ids and symbols come from outside: none may end the line or control the terminal.
    return repr(text) if not text or " " in text or not text.isprintable() else text


def setup(level: int = logging.INFO, *, process: str = "") -> None:
    """Sends this process's logs to standard error. Called once, when a service starts, and once where one is forked.

    Args:
        level: the least that is written.
        process: as in `KeyValueFormatter`.
    """
    handler = logging.StreamHandler()
    handler.setFormatter(KeyValueFormatter(process))
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Both log an ERROR for every failed attempt to reconnect, which `schemas.runtime.amqp.link` logs itself.
    for chatty in ("aiormq", "aio_pika"):
        logging.getLogger(chatty).setLevel(logging.CRITICAL)
    # At DEBUG it logs what it signs, with the key.
    logging.getLogger("ccxt").setLevel(logging.INFO)
