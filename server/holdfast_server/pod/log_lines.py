"""The form of the log: one line per event on stderr, `key=value` pairs, values quoted where they need it.

    2026-11-20T21:04:05.123Z level=warning event="peer cannot be dialled" logger=peers.channel peer=…

What callers pass as `extra` becomes pairs.  Line breaks are escaped, so that no event can forge another.
Secrets are kept out by those who log, not here.
"""

from __future__ import annotations

import json
import logging
import sys
import time

_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_PREFIX = "holdfast_server."


class LogfmtFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        moment = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        pairs = {
            "level": record.levelname.lower(),
            "event": record.getMessage(),
            "logger": record.name.removeprefix(_PREFIX),
            **{key: value for key, value in vars(record).items() if key not in _STANDARD},
        }
        if record.exc_info:
            pairs["exception"] = self.formatException(record.exc_info)
        return f"{moment}.{int(record.msecs):03d}Z " + " ".join(f"{k}={quote(v)}" for k, v in pairs.items())


def quote(value: object) -> str:
    text = str(value)
    if text and text.isprintable() and not any(character in text for character in ' "=\\'):
        return text
    return json.dumps(text, ensure_ascii=False)


def set_up_logging(level: str = "INFO") -> None:
    """For the process's entry point."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LogfmtFormatter())
    logging.basicConfig(level=level, handlers=[handler], force=True)
    logging.getLogger("asyncio").setLevel(logging.WARNING)
