"""A PostgreSQL of our own. It refuses to run as root, so where root runs the tests it runs as the user that Debian makes for it."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

UNPRIVILEGED = "postgres"


def programs() -> Path | None:
    """The folder of `initdb` and `postgres`, the newest version where there are several."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: int(path.parts[4]))
    if found:
        return found[-1].parent
    on_path = shutil.which("initdb")
    return Path(on_path).resolve().parent if on_path else None


def required_programs() -> Path:
    """The same, or a skip that says what is missing."""
    found = programs()
    if found is None:
        pytest.skip("PostgreSQL is not installed: no initdb in /usr/lib/postgresql/*/bin or on the PATH")
    if os.geteuid() == 0 and not shutil.which("setpriv"):
        pytest.skip("PostgreSQL refuses to run as root, and there is no setpriv to run it as another user")
    return found


def as_other_user() -> list[str]:
    """What stands before a command of PostgreSQL, so that it does not run as root."""
    if os.geteuid() != 0:
        return []
    return ["setpriv", f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"]


def call(folder: Path, *arguments: object) -> None:
    """Run a program of PostgreSQL to its end in `folder`, which is the other user's; what it said stands in the file `said`."""
    said = folder / "said"
    with said.open("ab") as output:
        ended = subprocess.run(
            [*as_other_user(), *map(str, arguments)],
            cwd=folder,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            check=False,
        )
    assert ended.returncode == 0, said.read_text(errors="replace")


def make_database(folder: Path, data: Path, user: str, password: str, options: Sequence[str] = ()) -> None:
    """`initdb` with one user who needs a password. `folder` must lie where other users may enter, so not below pytest's."""
    found = programs()
    assert found is not None
    written = folder / "password"
    written.write_text(password, encoding="utf-8")
    if os.geteuid() == 0:
        for path in (folder, written):
            shutil.chown(path, UNPRIVILEGED, UNPRIVILEGED)
    call(folder, found / "initdb", "-D", data, "--no-sync", "-U", user, "--auth=scram-sha-256", f"--pwfile={written}", *options)
