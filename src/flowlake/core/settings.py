"""Settings, read once at the edge: environment `FLOWLAKE_*` over `flowlake.toml` over defaults.

Below the edge functions take values. Secrets come only from the environment, or from a file outside the repository that
`FLOWLAKE_SECRETS_FILE` names; they are masked in every representation and never written anywhere.
"""

from __future__ import annotations

import math
import os
import re
import tomllib
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path

from flowlake.core.alert_settings import ALERT_NAMES, ALERT_SECRETS, AlertSettings, alert_settings, watch_text
from flowlake.core.errors import UsageError
from flowlake.core.secret import Secret as Secret

PREFIX = "FLOWLAKE_"
CONFIG_FILE = "flowlake.toml"


@dataclass(frozen=True)
class S3Access:
    """How to reach an S3-compatible endpoint."""

    endpoint: str = ""
    region: str = ""
    key_id: Secret = field(default_factory=lambda: Secret(""))
    secret: Secret = field(default_factory=lambda: Secret(""))


@dataclass(frozen=True)
class FlowThresholds:
    """From which figures unusual flow is a hit; `datasets/hits.py` says which rule uses which. A partition records them.

    As settings their names have `flow_` in front. A name ends in its unit; `days` are calendar days, a `distance` is a logarithm
    of strike over spot, out of the money.
    """

    sweep_premium_usd: float = 40_000.0
    sweep_fills: float = 3.0
    sweep_premium_z: float = 2.0
    spike_premium_usd: float = 20_000.0
    spike_size: float = 400.0
    spike_premium_z: float = 2.5
    spike_size_z: float = 2.0
    min_samples: float = 12.0
    robust_samples: float = 60.0
    nbbo_coverage: float = 0.5
    aggressor_share: float = 0.55
    nbbo_age_ms: float = 1_000.0
    block_premium_usd: float = 200_000.0
    block_size: float = 500.0
    short_days: float = 21.0
    otm_distance: float = 0.05
    otm_premium_usd: float = 50_000.0
    otm_packets: float = 3.0
    leaps_days: float = 270.0
    leaps_premium_usd: float = 100_000.0
    leaps_packets: float = 2.0
    volume_to_open_interest: float = 1.0
    volume_size: float = 500.0
    negotiated_premium_usd: float = 100_000.0
    negotiated_share: float = 0.5
    repeated_hits: float = 3.0
    repeated_premium_usd: float = 20_000.0
    lottery_distance: float = 0.15
    lottery_price_usd: float = 0.5
    lottery_size: float = 500.0
    lottery_days: float = 45.0
    burst_premium_usd: float = 50_000.0
    burst_packets: float = 5.0


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
    pushgateway: str = ""
    """Address of the Prometheus Pushgateway that `flowlake metrics push` pushes to."""
    parent_run: str = ""
    """What starts this run, such as the run of a scheduler; written into its records."""
    log_format: str = "text"
    """text for people, json for machines."""
    condition_policy: str = "opra-massive"
    """What sale conditions mean: `name@version` of a policy of `sale_conditions`, or a name for its newest version."""
    flow: FlowThresholds = field(default_factory=FlowThresholds)
    """One setting for each of its fields, `flow_` in front of the name."""

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


def described(settings: Settings) -> dict[str, str | int | float]:
    """Every setting as it may be shown: of a secret only whether it is set."""
    shown: dict[str, str | int | float] = {}
    for f in fields(settings):
        value = getattr(settings, f.name)
        if isinstance(value, FlowThresholds):
            shown |= {FLOW_PREFIX + name: threshold for name, threshold in asdict(value).items()}
        elif isinstance(value, Secret):
            shown[f.name] = "set" if value else "not set"
        else:
            shown[f.name] = without_secrets(value, settings) if isinstance(value, str) else value
    return shown


_WHOLE_NUMBERS = frozenset({"download_workers", "max_object_mb"})
FLOW_PREFIX = "flow_"
_THRESHOLDS = frozenset(FLOW_PREFIX + f.name for f in fields(FlowThresholds))
_NAMES = frozenset(f.name for f in fields(Settings)) - {"flow"} | _THRESHOLDS


def thresholds(values: Mapping[str, object]) -> FlowThresholds:
    """The thresholds among settings by name, such as `described` gives them; defaults for the rest.

    Raises UsageError for one that is no number of at least 0.
    """
    return FlowThresholds(**{name[len(FLOW_PREFIX) :]: _threshold(name, values[name]) for name in _THRESHOLDS & values.keys()})


def _threshold(name: str, value: object) -> float:
    try:
        number = float(str(value))
    except ValueError:
        number = math.nan
    if not 0.0 <= number < math.inf:
        raise UsageError(f"{name} is {value!r}", "give a number of at least 0")
    return number


def load_settings(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> Settings:
    """Settings from the environment and `flowlake.toml` of `folder` (default: the current one).

    Raises UsageError for an unknown name in the file, a secret in the file, or a number that is none.
    """
    values = _values(environ, folder)
    return _build({name: values[name] for name in values.keys() & _NAMES})


def load_alert_settings(environ: Mapping[str, str] | None = None, folder: Path | None = None) -> AlertSettings:
    """Settings of notifications, from the same places.

    Raises UsageError for an unknown name in the file, a secret in the file, or a value that cannot be right.
    """
    return alert_settings(_values(environ, folder))


def _values(environ: Mapping[str, str] | None, folder: Path | None) -> dict[str, str]:
    environ = os.environ if environ is None else environ
    values = _config_file((folder or Path.cwd()) / CONFIG_FILE)
    values |= _secrets_file(environ.get(f"{PREFIX}SECRETS_FILE", ""))
    return values | {n: environ[PREFIX + n.upper()] for n in _NAMES | ALERT_NAMES if environ.get(PREFIX + n.upper())}


def _build(values: Mapping[str, str]) -> Settings:
    built: dict[str, object] = {"flow": thresholds(values)}
    for name, value in values.items():
        if name in _THRESHOLDS:
            continue
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
    known = _NAMES | ALERT_NAMES
    values = {name: watch_text(value) if name == "watch" else str(value) for name, value in _parse_toml(path).items()}
    if unknown := sorted(set(values) - known):
        raise UsageError(f"{path}: unknown setting {', '.join(unknown)}", f"known are {', '.join(sorted(known))}")
    if secret := sorted(set(values) & (_SECRET_NAMES | ALERT_SECRETS)):
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
    allowed = _SECRET_NAMES | ALERT_SECRETS
    if wrong := sorted(set(values) - allowed):
        raise UsageError(f"{path}: {', '.join(wrong)} is no secret", f"it may hold {', '.join(sorted(allowed))}")
    return values


def _parse_toml(path: Path) -> dict[str, object]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UsageError(f"{path} is not valid TOML: {error}", "correct the line that it names") from error
