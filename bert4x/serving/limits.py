"""How much a server takes at once."""

from dataclasses import dataclass, fields

from bert4x.errors import InputError


@dataclass(frozen=True)
class Limits:
    """Raises: InputError for a limit that is no positive number; `wait` may be 0."""

    body: int = 4 << 20  # bytes of a request
    bodies: int = 256 << 20  # bytes of all requests that are being read or answered
    texts: int = 1024  # of a request
    tokens: int = 1 << 18  # of the texts of a request together
    queue: int = 256  # requests for one model that wait or are computed; more are answered with 429
    seconds: float = 120  # that a request may take
    reading: float = 20  # seconds that its headers, and then its body, may take to arrive
    batch_tokens: int = 16384  # computed at a time, padding included
    step: float = 0.25  # seconds that a batch should last, however many tokens it may have
    wait: float = 0.002  # seconds that a batch waits for more texts, while there were several requests of late
    rows: int = 32  # texts that are written at a time

    def __post_init__(self):
        for field in fields(self):
            value = getattr(self, field.name)
            if not value > 0 and not (field.name == "wait" and value == 0):
                raise InputError(f"the limit {field.name} is {value}; expected a number above 0")
