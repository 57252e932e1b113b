"""Airflow's own metrics, sent as the page on monitoring says: they reach the address that Prometheus 3 takes them at."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

PAGE = Path(__file__).resolve().parents[2] / "docs/monitoring.md"
PROMETHEUS = "http://prometheus:9090"
# What Airflow's scheduler does when it starts and each time it has looked round.
EMIT = """
from airflow._shared.observability.metrics import stats
from airflow.observability.metrics.stats_utils import get_stats_factory
stats.initialize(factory=get_stats_factory(), export_legacy_names=True)
stats.incr("scheduler_heartbeat")
stats.gauge("pool.open_slots", 2, tags={"pool_name": "flowlake_cpu"})
"""


def stated() -> dict[str, str]:
    """The variables of the page."""
    return dict(re.findall(r"^(AIRFLOW__METRICS__\w+|OTEL_\w+)=(\S+)$", PAGE.read_text(encoding="utf-8"), re.MULTILINE))


def test_metrics_are_sent_as_the_page_says() -> None:
    received: list[tuple[str, bytes]] = []

    class Receiver(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            received.append((self.path, self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with HTTPServer(("127.0.0.1", 0), Receiver) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        here = f"http://127.0.0.1:{server.server_address[1]}"
        variables = {name: value.replace(PROMETHEUS, here) for name, value in stated().items()}
        assert here in variables["OTEL_EXPORTER_OTLP_METRICS_ENDPOINT"]
        done = subprocess.run(
            [sys.executable, "-c", EMIT],
            env={**os.environ, **variables, "no_proxy": "127.0.0.1"},
            capture_output=True,
            text=True,
            timeout=300,
            check=False,
        )
        server.shutdown()
    assert done.returncode == 0, done.stderr
    assert {path for path, _ in received} == {"/api/v1/otlp/v1/metrics"}
    requests = [ExportMetricsServiceRequest.FromString(body) for _, body in received]
    sent = {
        m.name for one in requests for resource in one.resource_metrics for scope in resource.scope_metrics for m in scope.metrics
    }
    assert {"airflow.scheduler_heartbeat", "airflow.pool.open_slots"} <= sent
