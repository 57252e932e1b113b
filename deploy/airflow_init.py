"""Prepare Airflow once before its parts start: the metadata database, the login, and the pools that the DAGs name.

Everything may be done again: a second start finds the database up to date, and takes password and slots from the environment anew.
"""

from __future__ import annotations

import json
import os
import subprocess
import tempfile
from pathlib import Path

POOLS = {
    "flowlake_bucket": ("FLOWLAKE_BUCKET_SLOTS", "fetching from the bucket"),
    "flowlake_cpu": ("FLOWLAKE_CPU_SLOTS", "computing"),
}


def write_login(path: Path, user: str, password: str) -> None:
    """The file that the web pages compare passwords with, readable by its owner alone."""
    path.touch(mode=0o600)
    path.write_text(json.dumps({user: password}), encoding="utf-8")


def pools() -> dict[str, dict[str, object]]:
    return {
        name: {"slots": int(os.environ[slots]), "description": what, "include_deferred": False}
        for name, (slots, what) in POOLS.items()
    }


def main() -> None:
    login = Path(os.environ["AIRFLOW__CORE__SIMPLE_AUTH_MANAGER_PASSWORDS_FILE"])
    write_login(login, os.environ["AIRFLOW_USER"], os.environ["AIRFLOW_PASSWORD"])
    subprocess.run(["airflow", "db", "migrate"], check=True)
    with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
        json.dump(pools(), file)
        file.flush()
        subprocess.run(["airflow", "pools", "import", file.name], check=True)


if __name__ == "__main__":
    main()
