"""Where things are kept and fetched, from the environment variables people already have; they are only read."""

import os
from pathlib import Path

HUGGING_FACE = "https://huggingface.co"
HF_MIRROR = "https://hf-mirror.com"
MODELSCOPE = "https://modelscope.cn"


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
    return os.environ.get("HF_ENDPOINT", "").rstrip("/") or None


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
    return (domain if "://" in domain else f"https://{domain}") if domain else MODELSCOPE
