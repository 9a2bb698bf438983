"""What Prometheus reads at /metrics."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120)
_SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Metrics:
    """One service's metrics, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.waiting = Gauge(
            "unmask_queue_requests", "Texts and results that wait", ["model"], registry=registry
        )
        self.running = Gauge("unmask_batch_rows", "Rows in the running batch", ["model"], registry=registry)
        self.step_rows = Histogram(
            "unmask_step_rows", "Rows of each step of writing", ["model"], buckets=_SIZES, registry=registry
        )
        self.call_rows = Histogram(
            "unmask_call_rows", "Texts answered together", ["model"], buckets=_SIZES, registry=registry
        )
        self.written = Counter("unmask_written_tokens", "Tokens written", ["model"], registry=registry)
        self.read = Counter("unmask_read_tokens", "Tokens read", ["model"], registry=registry)
        self.refused = Counter(
            "unmask_refused_requests",
            "Answered with 503; no model: before it was read",
            ["model"],
            registry=registry,
        )
        self.cancelled = Counter(
            "unmask_cancelled",
            "Texts and results that nobody waits for any more",
            ["model"],
            registry=registry,
        )
        self.first_token = Histogram(
            "unmask_first_token_seconds",
            "From a request's arrival to its first token",
            ["model"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.latency = Histogram(
            "unmask_request_seconds",
            "From a request's arrival to the end of its answer",
            ["route", "status"],
            buckets=_SECONDS,
            registry=registry,
        )
