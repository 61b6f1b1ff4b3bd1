"""What the server counts, for Prometheus."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

CONTENT_TYPE = "text/plain; version=0.0.4"

_SECONDS = (0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300)
_SAMPLES = (1, 2, 4, 8, 16, 32, 64)


class Metrics:
    """The numbers of one server, in a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "unimodal_requests", "Answered requests", ["method", "path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "unimodal_request_seconds", "From request to answer", ["path"], buckets=_SECONDS, registry=self.registry
        )
        self.waiting = Gauge("unimodal_waiting_requests", "Requests in the queue", registry=self.registry)
        self.running = Gauge("unimodal_running_requests", "Requests in the model", registry=self.registry)
        self.batch = Histogram(
            "unimodal_batch_samples", "Samples per pipeline call", ["task"], buckets=_SAMPLES, registry=self.registry
        )
        self.forwards = Counter("unimodal_forwards", "Passes through the backbone", ["task"], registry=self.registry)
        self.tokens = Counter(
            "unimodal_tokens", "Tokens generated, of text and pictures", ["task"], registry=self.registry
        )
        self.stages = Counter("unimodal_stage_seconds", "Time per stage", ["stage"], registry=self.registry)
        self.abandoned = Counter(
            "unimodal_abandoned_requests", "Requests whose client left before the answer", registry=self.registry
        )
        self.failed = Counter(
            "unimodal_failed_requests", "Requests that the model could not do", registry=self.registry
        )

    def text(self) -> bytes:
        """All numbers in the format that Prometheus reads."""
        return generate_latest(self.registry)
