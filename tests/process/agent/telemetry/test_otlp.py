"""Telemetry windows at an OpenTelemetry collector; the protocol's own published messages read what arrives."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from google.protobuf.json_format import Parse
from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import ExportMetricsServiceRequest
from opentelemetry.proto.metrics.v1.metrics_pb2 import Metric
from support.makers import bundles
from support.sites.agent_process import AgentProcess, eventually

from edge_agent.config.agent_toml import parse_config
from edge_agent.errors import ConfigError


class Collector:
    """Keeps what it is sent; answers with `status`."""

    def __init__(self) -> None:
        self.requests: list[ExportMetricsServiceRequest] = []
        self.refused = 0
        self.status = 200
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                assert (self.path, self.headers["content-type"]) == ("/v1/metrics", "application/json")
                request = Parse(body, ExportMetricsServiceRequest())  # fails on a field that is not the protocol's
                if outer.status == 200:
                    outer.requests.append(request)
                else:
                    outer.refused += 1
                self.send_response(outer.status)
                self.send_header("content-length", "2")
                self.end_headers()
                self.wfile.write(b"{}")

            def log_message(self, *_: object) -> None:
                return

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, args=(0.05,))
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def metrics(self, name: str) -> list[Metric]:
        resources = [resource for request in self.requests for resource in request.resource_metrics]
        found = [metric for resource in resources for scope in resource.scope_metrics for metric in scope.metrics]
        return [metric for metric in found if metric.name == f"edgewright.{name}"]

    def answered(self) -> int:
        return sum(point.as_int for metric in self.metrics("requests") for point in metric.sum.data_points)


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.close()


@pytest.fixture
def agent(tmp_path: Path, collector: Collector) -> Iterator[AgentProcess]:
    bundles.make_bundle(tmp_path / "factory", version="0.1.0")
    agent = AgentProcess(tmp_path, None, factory=tmp_path / "factory")
    text = agent.config.read_text().replace("[telemetry]", f'[telemetry]\notlp = "{collector.url}"')
    agent.config.write_text(text)
    with agent:
        yield agent


def test_answers_are_counted_and_timed_at_the_collector(agent: AgentProcess, collector: Collector) -> None:
    for _ in range(3):
        agent.served_by()
    eventually("three answers", lambda: collector.answered() == 3)
    timed = [point for metric in collector.metrics("latency") for point in metric.exponential_histogram.data_points]
    assert sum(point.count for point in timed) == 3
    assert all(sum(point.positive.bucket_counts) == point.count and point.scale == 0 for point in timed)
    assert all(point.start_time_unix_nano <= point.time_unix_nano for point in timed)
    labels = {item.key: item.value.string_value for item in timed[0].attributes}
    assert (labels["slot"], labels["version"]) == ("main", "0.1.0")
    about = collector.requests[0].resource_metrics[0].resource.attributes
    assert {item.key: item.value.string_value for item in about}["device.id"] == "dev-1"


def test_collector_that_is_overloaded_for_a_while_misses_nothing(agent: AgentProcess, collector: Collector) -> None:
    collector.status = 503
    agent.served_by()
    eventually("a refusal", lambda: collector.refused > 0)
    agent.served_by()
    collector.status = 200
    eventually("both answers", lambda: collector.answered() == 2)


def test_address_that_is_none_is_refused_by_name() -> None:
    slot = {"name": "main", "factory": "f"}
    with pytest.raises(ConfigError, match=r"config\.telemetry\.otlp"):
        parse_config({"device": {"id": "d"}, "telemetry": {"otlp": "127.0.0.1:4318"}, "slots": [slot]})
