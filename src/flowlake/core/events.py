"""What happens during a run, as events for machines: one JSON object per line, through the standard logging.

Events go to a logger of their own. Nobody hears them until a handler is attached, so that the lines meant for people stay alone.
"""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

EVENTS = logging.getLogger("flowlake.events")
EVENTS.propagate = False
EVENTS.addHandler(logging.NullHandler())

_owner = ("", "")
"""The run of the events, and its parent: of the whole process, because libraries log from threads of their own."""


@contextmanager
def events_of(run_id: str, parent: str) -> Iterator[None]:
    """Within the block every line carries this run, and what started it."""
    global _owner
    before, _owner = _owner, (run_id, parent)
    try:
        yield
    finally:
        _owner = before


def emit(event: str, level: int = logging.INFO, **fields: Any) -> None:
    """An event with its facts: plain values, dates and moments."""
    EVENTS.log(level, event, extra={"facts": fields})


class JsonLines(logging.Formatter):
    """A record as one JSON object: `ts` (UTC), `level`, `event`, `run_id`, `parent`, and the facts of the event.

    Any other record of logging becomes an event `message`. `redact` is given each text before it is written.
    """

    def __init__(self, redact: Callable[[str], str]) -> None:
        super().__init__()
        self._redact = redact

    def format(self, record: logging.LogRecord) -> str:
        moment = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        facts = getattr(record, "facts", None)
        event = "message" if facts is None else record.getMessage()
        run_id, parent = _owner
        if facts is None:
            facts = {"logger": record.name, "text": record.getMessage()}
            if record.exc_info:
                facts["traceback"] = self.formatException(record.exc_info)
        head = {"ts": moment, "level": record.levelname.lower(), "event": event, "run_id": run_id, "parent": parent}
        return json.dumps(self._clean(head | facts), default=str, ensure_ascii=False)

    def _clean(self, value: Any) -> Any:
        """Texts without secrets. The whole line cannot be searched: JSON writes some characters differently."""
        if isinstance(value, str):
            return self._redact(value)
        if isinstance(value, dict):
            return {key: self._clean(one) for key, one in value.items()}
        return [self._clean(one) for one in value] if isinstance(value, (list, tuple)) else value


def on_stderr() -> bool:
    """Whether standard error belongs to the events, so that nothing else may be written there."""
    return any(isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr for handler in EVENTS.handlers)


def listen(handler: logging.Handler, redact: Callable[[str], str]) -> None:
    """Write events, and every other record of logging, to `handler` alone, as JSON lines."""
    handler.setFormatter(JsonLines(redact))
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.captureWarnings(True)
    EVENTS.handlers = [handler]
    EVENTS.setLevel(logging.INFO)
