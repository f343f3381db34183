"""What a server counts, in Prometheus' form."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from bert4x.serving.models import Models

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)


class Metrics:
    """Of one server."""

    def __init__(self, models: Models):
        self.registry = CollectorRegistry()

        def made(kind, name, about, labels=(), **options):
            return kind(f"bert4x_{name}", about, labels, registry=self.registry, **options)

        self.requests = made(Counter, "requests", "Answers by route and status", ("route", "status"))
        self.seconds = made(Histogram, "request_seconds", "Time to an answer", ("route",))
        self.tokens = made(Counter, "tokens", "Tokens of texts that were computed", ("model",))
        self.written = made(Counter, "written_tokens", "Tokens that were written", ("model",))
        self.batches = made(Histogram, "batch_texts", "Texts computed together", ("model",), buckets=SIZES)
        waiting = made(Gauge, "waiting_requests", "Requests that wait or are computed", ("model",))
        for one in models.served.values():
            worker = one.worker
            waiting.labels(one.name).set_function(lambda w=worker: sum(not job.over for job in list(w.jobs)))
            worker.observe = self.observer(one.name)

    def observer(self, model: str):
        """What is told of each batch of a model."""

        def observe(texts: int, tokens: int) -> None:
            self.batches.labels(model).observe(texts)
            self.tokens.labels(model).inc(tokens)

        return observe

    def answered(self, scope, status: int, seconds: float) -> None:
        """Counts an answer, by the template of its route: what clients make up is one."""
        route = getattr(scope.get("route"), "path", "other")
        self.requests.labels(route, str(status)).inc()
        self.seconds.labels(route).observe(seconds)

    def text(self) -> bytes:
        """All of it, as a scraper reads it."""
        return generate_latest(self.registry)
