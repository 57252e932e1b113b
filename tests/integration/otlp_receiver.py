"""Metrics over OTLP, shown as a page that any Prometheus can scrape.

Prometheus 3 takes OTLP itself; Debian's, which the tests start, is built without. This does what Prometheus does by default: dots
in names become underscores, sums that only grow end in `_total`, `service.name` becomes `job` and `service.instance.id` `instance`.
Histograms are not shown, but named in `unwanted`: none is meant to be sent.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest

PATH = "/api/v1/otlp/v1/metrics"
Labels = tuple[tuple[str, str], ...]


@dataclass
class Received:
    """The last value of every series, and where to send more."""

    endpoint: str = ""
    values: dict[tuple[str, Labels], float] = field(default_factory=dict)
    kinds: dict[str, str] = field(default_factory=dict)
    unwanted: set[str] = field(default_factory=set)

    @property
    def address(self) -> str:
        return self.endpoint.removeprefix("http://").removesuffix(PATH)

    def take(self, body: bytes) -> None:
        for sent in ExportMetricsServiceRequest.FromString(body).resource_metrics:
            told = {one.key: one.value.string_value for one in sent.resource.attributes}
            origin = (("instance", told["service.instance.id"]), ("job", told["service.name"]))
            for metric in (metric for scope in sent.scope_metrics for metric in scope.metrics):
                kind = metric.WhichOneof("data")
                if kind not in ("gauge", "sum") or metric.unit:  # a unit would become part of the name
                    self.unwanted.add(metric.name)
                    continue
                grows = kind == "sum" and metric.sum.is_monotonic
                name = metric.name.replace(".", "_") + ("_total" if grows else "")
                self.kinds[name] = "counter" if grows else "gauge"
                for point in getattr(metric, kind).data_points:
                    labels = tuple(sorted((one.key, one.value.string_value) for one in point.attributes))
                    self.values[name, origin + labels] = getattr(point, point.WhichOneof("value"))

    def page(self) -> str:
        return "".join(f"{name}{{{_written(labels)}}} {value}\n" for (name, labels), value in sorted(self.values.items()))


def _written(labels: Labels) -> str:
    return ",".join(f'{key}="{text}"' for key, text in labels)


@contextmanager
def otlp_receiver() -> Iterator[Received]:
    """A server that takes OTLP by POST and shows it by GET."""
    received, lock = Received(), threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            with lock:
                received.take(body)
            self._say(200 if self.path == PATH else 404, b"")

        def do_GET(self) -> None:
            with lock:
                self._say(200, received.page().encode())

        def _say(self, status: int, body: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Type", "text/plain")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        received.endpoint = f"http://127.0.0.1:{server.server_address[1]}{PATH}"
        yield received
        server.shutdown()
