"""Requests, and what their answers mean: the file, a refusal, or a failure that may pass."""

import email.utils
import re
import time

import requests
import urllib3

from bert4x.errors import DownloadError
from bert4x.hub import settings
from bert4x.version import __version__

TIMEOUT = (10, 30)  # seconds to connect, and between two packets
PASSING = (408, 425, 429, 500, 502, 503, 504)
INTERRUPTIONS = (
    requests.ConnectionError,
    requests.Timeout,
    requests.exceptions.ChunkedEncodingError,
    requests.exceptions.ContentDecodingError,
    urllib3.exceptions.HTTPError,
)


class UnreachableError(DownloadError):
    """A server that could not be reached, or was out of order; another one may do."""


class RefusedError(DownloadError):
    """A server that says there is no such file, or not for you."""


class Passing(Exception):
    """A failure that may pass by itself."""

    def __init__(self, why: str, retry_after: float | None = None):
        super().__init__(why)
        self.retry_after = retry_after


class Session(requests.Session):
    """A session in which ~/.netrc never replaces an Authorization that a request has."""

    def rebuild_auth(self, prepared_request, response):
        """On a redirect: what goes to the same host stays as it is."""
        kept = "Authorization" in prepared_request.headers
        if not kept or self.should_strip_auth(response.request.url, prepared_request.url):
            super().rebuild_auth(prepared_request, response)


def as_it_is(request: requests.PreparedRequest) -> requests.PreparedRequest:
    """An authentication that changes nothing; without one, requests asks ~/.netrc."""
    return request


def new_session() -> requests.Session:
    """A session that names itself; proxies are those of the environment."""
    session = Session()
    session.headers.update({"User-Agent": f"bert4x/{__version__}", "Accept-Encoding": "identity"})
    session.max_redirects = 10
    return session


def request(session: requests.Session, url: str, headers: dict[str, str], method: str = "GET") -> requests.Response:
    """One request; the body of the answer is not read yet.

    Raises: DownloadError (RefusedError) for an answer that will stay the same, Passing for one that may not.
    """
    given = settings.authorization(url)
    headers = headers | ({"Authorization": given} if given else {})
    auth = as_it_is if "Authorization" in headers else None
    following = method == "GET"
    try:
        response = session.request(
            method, url, headers=headers, auth=auth, stream=True, timeout=TIMEOUT, allow_redirects=following
        )
    except requests.TooManyRedirects:
        raise DownloadError(f"{url} redirects in a circle") from None
    except INTERRUPTIONS:
        raise
    except (requests.RequestException, ValueError) as error:  # an address, a proxy or a header that cannot be
        raise DownloadError(f"{url} cannot be asked for: {reason(error)}") from None
    status = response.status_code
    if status < 400 or status == 416:
        return response
    response.close()
    if status in PASSING:
        raise Passing(f"status {status}", seconds(response.headers.get("Retry-After")))
    hint = {
        401: "it is private, or there is none of this name; a token goes in HF_TOKEN",
        403: "access is refused; accept the model's terms in a browser, and set HF_TOKEN",
        404: "there is none",
    }
    raise RefusedError(f"{url}: status {status}; {hint.get(status, response.reason or 'refused')}")


def encoded(response: requests.Response) -> bool:
    """Whether a server compressed the body, though asked not to: such bytes are none of the file's."""
    return response.headers.get("Content-Encoding", "identity").lower() not in ("", "identity")


def validator(response: requests.Response) -> str | None:
    """What recognises the file in a later answer: a strong ETag, or the time of its last change."""
    etag = response.headers.get("ETag", "")
    return etag if etag.startswith('"') else response.headers.get("Last-Modified")


def seconds(retry_after: str | None) -> float | None:
    """A Retry-After header, seconds or a date, as seconds from now."""
    if not retry_after:
        return None
    plain = number(retry_after.strip())
    if plain is not None:
        return float(plain)
    try:
        return max(0.0, email.utils.parsedate_to_datetime(retry_after).timestamp() - time.time())
    except (ValueError, TypeError, OverflowError):
        return None


def number(text: str) -> int | None:
    """A size, a count of seconds: ASCII digits of a sane number."""
    return int(text) if re.fullmatch("[0-9]{1,18}", text) else None


def reason(error: Exception) -> str:
    """A short word on why a connection failed."""
    if isinstance(error, UnicodeEncodeError | requests.exceptions.InvalidHeader):  # whose text has the token in it
        return "a header has line breaks, or characters that are not ASCII; is HF_TOKEN the token alone?"
    inner = error.args[0] if error.args else error
    inner = getattr(inner, "reason", None) or inner
    text = re.sub(r"^.*?object at 0x[0-9a-f]+>[:,)]*\s*|^\(|<[^>]*0x[0-9a-f]+>[:,]?\s*", "", str(inner)).strip()
    return settings.hidden(text)[:200] or type(error).__name__
