"""Write `.env` from `.env.example` with new random secrets: `make env`. What only you know stays empty for you to fill."""

from __future__ import annotations

import base64
import re
import secrets
import sys
from pathlib import Path

EMPTY = re.compile(r"^([A-Z0-9_]+)=\s*$")
MARK = "# random:"
"""A line that begins so says that the next variable, if it is empty, gets a secret: `hex`, or `fernet` for Airflow's key."""


def filled(example: str) -> str:
    """The text of `.env`: each marked variable has a secret of its own."""
    lines: list[str] = []
    for line in example.splitlines():
        kind = lines[-1].removeprefix(MARK).strip() if lines and lines[-1].startswith(MARK) else ""
        found = EMPTY.match(line)
        if kind and found:
            value = secrets.token_bytes(32)
            lines[-1:] = []
            line = f"{found[1]}={base64.urlsafe_b64encode(value).decode() if kind == 'fernet' else value.hex()}"
        lines.append(line)
    return "\n".join(lines) + "\n"


def main(folder: Path) -> int:
    target = folder / ".env"
    if target.exists():
        sys.stderr.write(f"{target} exists and is left as it is; move it away to have a new one\n")
        return 2
    text = filled((folder / ".env.example").read_text(encoding="utf-8"))
    target.touch(mode=0o600)
    target.write_text(text, encoding="utf-8")
    empty = [found[1] for line in text.splitlines() if (found := EMPTY.match(line))]
    sys.stdout.write(f"{target} is written, readable by you alone. To fill in: {', '.join(empty)}\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(__file__).resolve().parent.parent))
