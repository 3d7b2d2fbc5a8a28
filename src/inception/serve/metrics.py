"""What is counted, for Prometheus: seconds, bytes and images, never milliseconds or percent."""

from dataclasses import dataclass

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.platform_collector import PlatformCollector
from prometheus_client.process_collector import ProcessCollector

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)
_BATCHES = (1, 2, 4, 8, 16, 32, 64)
_BYTES = (1e3, 1e4, 1e5, 1e6, 1e7, 1e8)


@dataclass(frozen=True)
class ModelMetrics:
    """The metrics of one model."""

    queue: Gauge
    waiting: Histogram
    decoding: Histogram
    inference: Histogram
    explanation: Histogram
    batch: Histogram
    answered: Counter
    failed: Counter
    expired: Counter
    restarts: Counter


class Metrics:
    """All metrics of one server, in a registry of its own."""

    CONTENT_TYPE = CONTENT_TYPE_LATEST

    def __init__(self) -> None:
        registry = self.registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        self.requests = Histogram(
            "inception_request_duration_seconds",
            "From the request's headers to the end of the answer; its count is the number of requests.",
            ("route", "method", "status"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.bodies = Histogram(
            "inception_request_body_bytes",
            "Request bodies.",
            ("route",),
            buckets=_BYTES,
            registry=registry,
        )
        self.reloads = Counter(
            "inception_reloads_total",
            "New bundle versions taken (ok) or refused (failed).",
            ("model", "outcome"),
            registry=registry,
        )
        self.ready = Gauge("inception_ready", "1 while every model answers.", registry=registry)
        self._queue = _gauge(registry, "inception_queue_images", "Images waiting.")
        self._waiting = _histogram(
            registry, "inception_waiting_seconds", "From queue to answer, without the network's time."
        )
        self._decoding = _histogram(
            registry, "inception_decoding_seconds", "Decoding and resizing a batch, summed over its images."
        )
        self._inference = _histogram(
            registry, "inception_inference_seconds", "The network's time for a batch."
        )
        self._explanation = _histogram(
            registry, "inception_explanation_seconds", "Answer and explanation of an image."
        )
        self._batch = _histogram(registry, "inception_batch_images", "Images in a batch.", _BATCHES)
        self._images = Counter(
            "inception_images_total",
            "Images answered, refused as unreadable (failed), or not reached in time (expired).",
            ("model", "outcome"),
            registry=registry,
        )
        self._restarts = Counter(
            "inception_inference_process_losses_total",
            "Inference processes that ended unasked or hung.",
            ("model",),
            registry=registry,
        )

    def of_model(self, model: str) -> ModelMetrics:
        """The metrics of the model called `model`."""
        return ModelMetrics(
            queue=self._queue.labels(model),
            waiting=self._waiting.labels(model),
            decoding=self._decoding.labels(model),
            inference=self._inference.labels(model),
            explanation=self._explanation.labels(model),
            batch=self._batch.labels(model),
            answered=self._images.labels(model, "answered"),
            failed=self._images.labels(model, "failed"),
            expired=self._images.labels(model, "expired"),
            restarts=self._restarts.labels(model),
        )

    def render(self) -> bytes:
        """All of it in Prometheus's text form."""
        return generate_latest(self.registry)


def _gauge(registry: CollectorRegistry, name: str, text: str) -> Gauge:
    return Gauge(name, text, ("model",), registry=registry)


def _histogram(
    registry: CollectorRegistry, name: str, text: str, buckets: tuple[float, ...] = _SECONDS
) -> Histogram:
    return Histogram(name, text, ("model",), buckets=buckets, registry=registry)
