"""The folders in which fetched models lie: ours, and huggingface_hub's, which is only read."""

import hashlib
import json
import re
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bert4x.checkpoints.files import in_folder
from bert4x.checkpoints.tensors import atomic_write
from bert4x.errors import Bert4xError, HubError
from bert4x.hub import settings
from bert4x.hub.locks import locked
from bert4x.hub.selection import CONFIGS, VOCABULARIES, WEIGHTS, matches
from bert4x.json_files import check_kinds, read_json

MANIFEST = ".bert4x.json"
MAX_NAME = 110  # characters of a name before its digest
KINDS = {"name": (str,), "source": (str,), "revision": (str,), "weights": (bool,), "complete": (bool,)}
KINDS |= {"files": (dict,), "listed": (list,)}


@dataclass(frozen=True)
class Cached:
    """A model that lies here. `ours` says whether in our folder, or in the one of huggingface_hub."""

    name: str
    path: Path
    bytes: int
    source: str
    ours: bool
    whole: bool


def folder_name(name: str) -> str:
    """A model's name as the name of a folder: readable, and of no other model."""
    plain = plain_name(name)
    if name.startswith(("http://", "https://")):  # two archives of one name
        return f"{plain.rpartition('--')[2]}-{digest(name)}"
    told = plain.replace("--", "/") == name.replace("://", "/")  # whether the folder tells the name
    return plain if told else f"{plain[-MAX_NAME:].lstrip('.-')}-{digest(name)}"


def plain_name(name: str) -> str:
    """The characters of a name that a folder may have; all others are one `--`."""
    return re.sub(r"[^\w.@-]+", "--", name)[-120:].lstrip(".-")


def digest(text: str) -> str:
    """What tells two names apart."""
    return hashlib.sha256(text.encode("utf-8", "replace")).hexdigest()[:8]


def folder_of(name: str) -> Path:
    """Our folder of a model, whether it is there or not."""
    models = settings.home() / "models"
    folder, former = models / folder_name(name), models / plain_name(name)
    if folder != former and read_manifest(former).get("name") == name:  # fetched when all folders had plain names
        return former
    if read_manifest(folder).get("name", name) != name:  # on a disk that takes A and a for one name
        return models / f"{folder.name[-MAX_NAME:]}-{digest(name)}"
    return folder


def lock_of(folder: Path) -> Path:
    """The file that whoever writes into a folder holds locked; outside of it, so that it outlives it."""
    digest = hashlib.sha256(str(folder.resolve()).encode()).hexdigest()[:8]
    return settings.home() / "locks" / f"{folder.name[:100]}-{digest}.lock"


def read_manifest(folder: Path) -> dict[str, Any]:
    """What we wrote about a folder, {} if nothing readable."""
    try:
        manifest = read_json(folder / MANIFEST)
        check_kinds(manifest, KINDS, str(folder / MANIFEST))
        check_kinds(manifest.get("files") or {}, dict.fromkeys(manifest.get("files") or {}, (dict,)), MANIFEST)
    except (Bert4xError, OSError):
        return {}
    return {key: value for key, value in manifest.items() if value is not None}


def write_manifest(folder: Path, manifest: dict[str, Any]) -> None:
    """Says what a folder holds."""
    with atomic_write(folder / MANIFEST) as path:
        path.write_text(json.dumps(manifest, ensure_ascii=False, indent=1), encoding="utf-8")


def is_whole(folder: Path, weights: bool = True) -> bool:
    """Whether a folder holds all of a model (or its vocabulary alone), fetched by us or put there by hand."""
    if not folder.is_dir():
        return False
    names = [path.name for path in folder.iterdir() if path.is_file()]
    manifest = read_manifest(folder)
    if manifest.get("complete") and (manifest.get("weights") or not weights):
        return set(manifest.get("files", ())) <= set(names)
    if not weights and not any(name.endswith(".part") for name in names):
        return any(matches(CONFIGS, n) for n in names) and any(matches(VOCABULARIES, n) for n in names)
    return has_weights(folder)  # which come last, and become whole at the last file


def has_weights(folder: Path) -> bool:
    """Whether every file of a checkpoint is there."""
    try:
        files = in_folder(folder)
    except Bert4xError:
        return False
    if files is None:
        return False
    if files.container == "megatron":  # how many there are is not written anywhere
        return not any(folder.glob("*.part"))
    if files.container == "tf1":
        found = list(folder.glob(f"{files.path.name}.data-*-of-*"))
        return bool(found) and len(found) == int(found[0].name.rpartition("-")[2])
    if files.path.name.endswith(".index.json"):
        try:
            shards = set(read_json(files.path).get("weight_map", {}).values())
            return bool(shards) and all((folder / str(shard)).is_file() for shard in shards)
        except (Bert4xError, AttributeError, TypeError, ValueError, OSError):
            return False
    return True


def in_hugging_face_cache(repository: str, revision: str | None = None, weights: bool = True) -> Path | None:
    """The folder of a repository that huggingface_hub fetched (for transformers, say), if all we need is in it.

    Weights without a vocabulary will do where nothing better can be had.
    """
    place = settings.hugging_face_cache() / f"models--{repository.replace('/', '--')}"
    commit = revision or "main"
    ref = place / "refs" / commit
    if ref.is_file():
        commit = ref.read_text("utf-8", "replace").strip()
    snapshot = place / "snapshots" / commit
    if not re.fullmatch(r"[\w.-]+", commit) or not (snapshot / "config.json").is_file():
        return None
    names = [path.name for path in snapshot.iterdir()]
    vocabulary = any(matches(VOCABULARIES, name) for name in names)
    if weights and not any(matches(needed, name) for needed, _ in WEIGHTS for name in names):
        return None  # only TensorFlow's or Flax' weights, which are not read here
    return snapshot if is_whole(snapshot, weights) and (vocabulary or settings.offline()) else None


def cached() -> list[Cached]:
    """All models that lie here."""
    found = []
    models = settings.home() / "models"
    for folder in sorted(models.iterdir()) if models.is_dir() else []:
        if folder.is_dir():
            manifest = read_manifest(folder)
            name = str(manifest.get("name") or folder.name)
            source = str(manifest.get("source") or "put there by hand")
            whole = is_whole(folder, manifest.get("weights", True))
            found.append(Cached(name, folder, size_of(folder), source, True, whole))
    theirs = settings.hugging_face_cache()
    for folder in sorted(theirs.glob("models--*")) if theirs.is_dir() else []:
        name = folder.name.removeprefix("models--").replace("--", "/")
        whole = in_hugging_face_cache(name)
        if whole:
            found.append(Cached(name, whole, size_of(whole), "huggingface_hub", False, True))
    return found


def names_of(name: str) -> set[str]:
    """A name, and that of the catalogue for it, of the same revision."""
    from bert4x.hub.catalogue import find

    bare, at, revision = name.partition("@")
    entry = find(bare)
    return {name, *((entry.name + at + revision,) if entry else ())}


def size_of(folder: Path) -> int:
    """Bytes of the files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def check(model: Cached) -> tuple[int, list[str]]:
    """Reads a model's files: how many had a hash to compare with, and what is wrong."""
    if not model.whole:
        return 0, [f"{model.path} is not whole; `bert4x download {model.name}` goes on"]
    if model.ours:
        files = read_manifest(model.path).get("files", {})
        expected = {model.path / name: str((known or {}).get("sha256")) for name, known in files.items()}
    else:  # a blob of a large file is named after its sha256
        blobs = {path: path.resolve().name for path in sorted(model.path.iterdir())}
        expected = {path: name for path, name in blobs.items() if re.fullmatch("[0-9a-f]{64}", name)}
    wrong = [f"{path} is not what was fetched" for path, sha256 in expected.items() if sha256_of(path) != sha256]
    return len(expected), wrong


def sha256_of(path: Path) -> str | None:
    """The sha256 of a file, None if there is none."""
    if not path.is_file():
        return None
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def remove(name: str) -> int:
    """Deletes a model from our folder; the bytes that it took.

    Raises: HubError when it is not there.
    """
    names = names_of(name)
    found = next((m for m in cached() if m.ours and (m.name in names or m.path.name == name)), None)
    if found is None:
        here = ", ".join(model.name for model in cached() if model.ours) or "nothing"
        hint = " It is in huggingface_hub's cache, which `hf cache` manages." if in_hugging_face_cache(name) else ""
        raise HubError(f"{name!r} is not in {settings.home() / 'models'}, which holds {here}.{hint}")
    with locked(lock_of(found.path)):
        shutil.rmtree(found.path)
    return found.bytes
