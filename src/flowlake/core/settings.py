"""Settings, read once at the edge: environment `FLOWLAKE_*` over `flowlake.toml` over defaults.

Below the edge functions take values. Secrets come only from the environment, or from a file outside the repository that
`FLOWLAKE_SECRETS_FILE` names; they are masked in every representation and never written anywhere.
"""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path

from flowlake.core.errors import UsageError

PREFIX = "FLOWLAKE_"
CONFIG_FILE = "flowlake.toml"


class Secret:
    """A value that never shows itself: `reveal()` is the only way to read it."""

    __slots__ = ("_value",)

    def __init__(self, value: str) -> None:
        self._value = value

    def reveal(self) -> str:
        return self._value

    def __bool__(self) -> bool:
        return bool(self._value)

    def __repr__(self) -> str:
        return "Secret('***')" if self._value else "Secret('')"

    __str__ = __repr__


@dataclass(frozen=True)
class S3Access:
    """How to reach an S3-compatible endpoint."""

    endpoint: str = ""
    region: str = ""
    key_id: Secret = field(default_factory=lambda: Secret(""))
    secret: Secret = field(default_factory=lambda: Secret(""))


@dataclass(frozen=True)
class Settings:
    """Everything that a run may be told from outside. Names in upper case with `FLOWLAKE_` in front are the variables."""

    lake: str = "./lake"
    bucket_endpoint: str = ""
    bucket_name: str = ""
    bucket_prefix: str = ""
    bucket_region: str = ""
    bucket_key_id: Secret = field(default_factory=lambda: Secret(""))
    bucket_secret: Secret = field(default_factory=lambda: Secret(""))
    lake_endpoint: str = ""
    lake_region: str = ""
    lake_key_id: Secret = field(default_factory=lambda: Secret(""))
    lake_secret: Secret = field(default_factory=lambda: Secret(""))
    scratch: str = ""
    dask_scheduler: str = ""
    download_workers: int = 8
    max_object_mb: int = 300
    """A larger object is held instead of fetched: tables are read whole, and a day of quotes would not fit into memory."""
    skip_feeds: str = ""
    """Raw datasets to leave out, separated by commas."""
    parent_run: str = ""
    """What starts this run, such as the run of a scheduler; written into its records."""
    log_format: str = "text"
    """text for people, json for machines."""

    @property
    def bucket_access(self) -> S3Access:
        return S3Access(self.bucket_endpoint, self.bucket_region, self.bucket_key_id, self.bucket_secret)

    @property
    def lake_access(self) -> S3Access:
        """Where an `s3://` lake lives; by default the endpoint and keys of the bucket."""
        return S3Access(
            self.lake_endpoint or self.bucket_endpoint,
            self.lake_region or self.bucket_region,
            self.lake_key_id or self.bucket_key_id,
            self.lake_secret or self.bucket_secret,
        )


_SECRET_NAMES = frozenset({"bucket_key_id", "bucket_secret", "lake_key_id", "lake_secret"})
_USER_IN_ADDRESS = re.compile(r"://[^/@\s]+@")
LOG_FORMATS = ("text", "json")


def without_secrets(text: str, settings: Settings) -> str:
    """`text` with the value of every secret, and any user and password in an address, replaced by `***`."""
    values = {getattr(settings, name).reveal() for name in _SECRET_NAMES} - {""}
    for value in sorted(values, key=len, reverse=True):
        text = text.replace(value, "***")
    return _USER_IN_ADDRESS.sub("://***@", text)


def described(settings: Settings) -> dict[str, str | int]:
    """Every setting as it may be shown: of a secret only whether it is set."""
    shown: dict[str, str | int] = {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        if isinstance(value, Secret):
            shown[f.name] = "set" if value else "not set"
        else:
            shown[f.name] = without_secrets(value, settings) if isinstance(value, str) else value
    return shown


_WHOLE_NUMBERS = frozenset({"download_workers", "max_object_mb"})


def load_settings(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Settings:
    """Settings from the environment and `flowlake.toml` of `folder` (default: the current one).

    Raises UsageError for an unknown name in the file, a secret in the file, or a number that is none.
    """
    environ = os.environ if environ is None else environ
    values: dict[str, str] = _config_file((folder or Path.cwd()) / CONFIG_FILE)
    values |= _secrets_file(environ.get(f"{PREFIX}SECRETS_FILE", ""))
    known = {f.name for f in fields(Settings)}
    values |= {n: environ[PREFIX + n.upper()] for n in known if environ.get(PREFIX + n.upper())}
    return _build(values)


def _build(values: Mapping[str, str]) -> Settings:
    built: dict[str, object] = {}
    for name, value in values.items():
        if name in _SECRET_NAMES:
            built[name] = Secret(value)
        elif name in _WHOLE_NUMBERS:
            if not value.isdigit() or int(value) < 1:
                raise UsageError(f"{name} is {value!r}", "give a whole number of at least 1")
            built[name] = int(value)
        elif name == "log_format" and value not in LOG_FORMATS:
            raise UsageError(f"log_format is {value!r}", f"give one of: {', '.join(LOG_FORMATS)}")
        else:
            built[name] = value
    return Settings(**built)  # type: ignore[arg-type]


def _config_file(path: Path) -> dict[str, str]:
    if not path.is_file():
        return {}
    values = {name: str(value) for name, value in _parse_toml(path).items()}
    known = {f.name for f in fields(Settings)}
    if unknown := sorted(set(values) - known):
        raise UsageError(f"{path}: unknown setting {', '.join(unknown)}", f"known are {', '.join(sorted(known))}")
    if secret := sorted(set(values) & _SECRET_NAMES):
        raise UsageError(
            f"{path}: {', '.join(secret)} is a secret and does not belong in this file",
            f"set {PREFIX}{secret[0].upper()}, or name a file outside the repository in {PREFIX}SECRETS_FILE",
        )
    return values


def _secrets_file(name: str) -> dict[str, str]:
    if not name:
        return {}
    path = Path(name)
    if not path.is_file():
        raise UsageError(f"{PREFIX}SECRETS_FILE: {path} does not exist", "create it, or unset the variable")
    values = {key: str(value) for key, value in _parse_toml(path).items()}
    if wrong := sorted(set(values) - _SECRET_NAMES):
        raise UsageError(f"{path}: {', '.join(wrong)} is no secret", f"it may hold {', '.join(sorted(_SECRET_NAMES))}")
    return values


def _parse_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}", "correct the line that it names") from error
