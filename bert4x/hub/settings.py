"""Where things are kept and fetched, from the environment variables people already have; they are only read."""

import base64
import os
import re
from pathlib import Path
from urllib.parse import unquote, urlsplit, urlunsplit

from bert4x.errors import HubError

HUGGING_FACE = "https://huggingface.co"
HF_MIRROR = "https://hf-mirror.com"
MODELSCOPE = "https://modelscope.cn"


_authorizations: dict[
    tuple[str, str], str
] = {}  # origin of an address that came with a name and password -> the header for it


def without_password(address: str) -> str:
    """An address without the name and password in it, so that no folder, manifest or message has them. They are kept in
    memory, for requests to that host.

    Raises: HubError for an address without a valid host.
    """
    try:
        parts = urlsplit(address)
        valid = bool(parts.hostname) and (parts.port is None or parts.port)
    except ValueError:
        valid = False
    if not valid:
        raise HubError(
            f"{hidden(address)} has no valid host; expected https://HOST/... (in a password, / is %2F and @ is %40)"
        )
    user, at, host = parts.netloc.rpartition("@")
    if not at:
        return address
    name, _, password = user.partition(":")
    clean = urlunsplit(parts._replace(netloc=host))
    secret = base64.b64encode(f"{unquote(name)}:{unquote(password)}".encode()).decode()
    _authorizations[origin(clean)] = f"Basic {secret}"
    return clean


def authorization(address: str) -> str | None:
    """The header for an address whose host was named together with a password."""
    return _authorizations.get(origin(address)) if _authorizations else None


def origin(address: str) -> tuple[str, str]:
    """Scheme and host of an address."""
    parts = urlsplit(address)
    return parts.scheme, parts.netloc.rpartition("@")[2]


def hidden(text: str) -> str:
    """A text with what may be a name and password in an address left out."""
    return re.sub(r"//\S*@", "//...@", text)


def is_on(name: str) -> bool:
    """Whether a variable switches something on."""
    return os.environ.get(name, "").strip().lower() in ("1", "on", "yes", "true")


def offline() -> bool:
    """Whether no request may be made: BERT4X_OFFLINE or HF_HUB_OFFLINE."""
    return is_on("BERT4X_OFFLINE") or is_on("HF_HUB_OFFLINE")


def caches() -> Path:
    """The folder of caches: XDG_CACHE_HOME, or ~/.cache."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser()


def home() -> Path:
    """Our folder: BERT4X_HOME, or bert4x among the caches."""
    return Path(os.environ.get("BERT4X_HOME") or caches() / "bert4x").expanduser()


def hugging_face_home() -> Path:
    """HF_HOME."""
    return Path(os.environ.get("HF_HOME") or caches() / "huggingface").expanduser()


def hugging_face_cache() -> Path:
    """The folder in which huggingface_hub keeps models: HF_HUB_CACHE, or hub in HF_HOME."""
    return Path(os.environ.get("HF_HUB_CACHE") or hugging_face_home() / "hub").expanduser()


def hugging_face_endpoint() -> str | None:
    """HF_ENDPOINT, None if it is not set."""
    endpoint = os.environ.get("HF_ENDPOINT", "").rstrip("/")
    return without_password(endpoint) if endpoint else None


def hugging_face_token() -> str | None:
    """HF_TOKEN, or the one that `hf auth login` keeps."""
    token = os.environ.get("HF_TOKEN", "").strip()
    if token:
        return token
    path = Path(os.environ.get("HF_TOKEN_PATH") or hugging_face_home() / "token").expanduser()
    try:
        return path.read_text("utf-8").strip() or None
    except (OSError, UnicodeDecodeError):
        return None


def modelscope_endpoint() -> str:
    """MODELSCOPE_DOMAIN, a host as ModelScope's own tool takes it or an address, or modelscope.cn."""
    domain = os.environ.get("MODELSCOPE_DOMAIN", "").rstrip("/")
    return without_password(domain if "://" in domain else f"https://{domain}") if domain else MODELSCOPE
