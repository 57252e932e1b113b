"""Samples in Prometheus' text format: as text, in a file for node_exporter, or pushed to a Pushgateway."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterable, Iterator
from http.client import HTTPException
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.error import HTTPError
from urllib.parse import urlsplit

from flowlake.core.errors import PushError, StorageError, UsageError
from flowlake.monitoring.metrics import METRICS, Sample

if TYPE_CHECKING:
    from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
    from prometheus_client.registry import CollectorRegistry

    Family = CounterMetricFamily | GaugeMetricFamily

JOB = "flowlake"
TIMEOUT_SECONDS = 30.0
TEXTFILE_SUFFIX = ".prom"


class _Collected:
    """What a registry asks for its metrics: those that have a sample, in the order of their declaration."""

    def __init__(self, samples: Iterable[Sample]) -> None:
        self._samples = tuple(samples)

    def collect(self) -> Iterator[Family]:
        from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily

        for metric in METRICS:
            made: Family
            if metric.kind == "counter":
                made = CounterMetricFamily(metric.name, metric.doc, labels=metric.labels)
            else:
                made = GaugeMetricFamily(metric.name, metric.doc, labels=metric.labels)
            for sample in self._samples:
                if sample.metric is metric:
                    made.add_metric(sample.labels, sample.value)
            if made.samples:
                yield made


def _registry(samples: Iterable[Sample]) -> CollectorRegistry:
    from prometheus_client.registry import CollectorRegistry

    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(samples))
    return registry


def text(samples: Iterable[Sample]) -> str:
    """Prometheus' text format."""
    from prometheus_client.exposition import generate_latest

    return generate_latest(_registry(samples)).decode()


def write_textfile(samples: Iterable[Sample], path: Path) -> None:
    """The text in a file of node_exporter's textfile collector, which reads `*.prom`; it never sees half a file."""
    if path.suffix != TEXTFILE_SUFFIX:
        raise UsageError(f"{path} would not be read", f"node_exporter reads files that end in {TEXTFILE_SUFFIX}")
    half = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        half.write_text(text(samples), encoding="utf-8")
        half.chmod(0o644)  # node_exporter runs as another user
        os.replace(half, path)  # noqa: PTH105 - the atomic act, by its own name
    except OSError as error:
        half.unlink(missing_ok=True)
        raise StorageError(f"{path} cannot be written: {error.strerror or error}", "give a path in a folder that exists") from None


def push(samples: Iterable[Sample], gateway: str, instance: str) -> None:
    """Replace what the Pushgateway has for this job and instance.

    Raises UsageError for an address that is none, PushError where the gateway cannot be reached or refuses.
    """
    from prometheus_client.exposition import push_to_gateway

    address = check_address(gateway)
    try:
        push_to_gateway(address, JOB, _registry(samples), {"instance": instance}, TIMEOUT_SECONDS)
    except HTTPError as error:
        said = " ".join(error.read(500).decode("utf-8", "replace").split())
        raise PushError(
            f"the pushgateway at {address} refused the metrics: {error.code} {error.reason}{f': {said}' if said else ''}",
            "check that the address is a Pushgateway's, and its log",
        ) from None
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or str(error) or type(error).__name__
        raise PushError(
            f"the pushgateway at {address} cannot be reached: {reason}", "check the address, and that the gateway runs"
        ) from None


def check_address(gateway: str) -> str:
    """The address without a slash at its end. Raises UsageError where it is no URL, or holds a user: it is printed and logged."""
    try:
        parts = urlsplit(gateway)
        port = parts.port
    except ValueError:
        parts, port = urlsplit(""), None
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise UsageError("the address of the pushgateway is no URL", "write it like http://localhost:9091")
    if parts.username is not None:
        raise UsageError(
            "the address of the pushgateway holds a user",
            "put a proxy in front that knows it, or reach the gateway on a private network",
        )
    return gateway.rstrip("/")
