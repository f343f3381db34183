"""Which files of a repository or an archive a model needs: config, vocabulary, and one format of the weights."""

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath

from bert4x.checkpoints.formats.foreign import explained, kind_of
from bert4x.errors import UnknownFormatError, UnsafeFileError

CONFIGS = r"(bert_|albert_|model_)?config\.json|hparams\.json"
OTHER_CONFIGS = r"(?!tokenizer|generation|sentence)\w+_config[\w.-]*\.json"  # only where there is none of those
VOCABULARIES = (
    r"[\w.-]*vocab[\w.-]*\.(txt|json|bpe)|merges\.txt|encoder\.json|tokenizer(_config)?\.json"
    r"|(special_tokens_map|added_tokens)\.json|[\w.-]+\.model|chat_template\.jinja|generation_config\.json"
)
OTHER_PICKLES = r"(?!training_args|optimizer|scheduler|rng_state)[\w.-]+\.(bin|pt|pth)"
# Formats of weights, best first: what must be there, and what belongs to it.
WEIGHTS = (
    (r"model\.safetensors", r"model\.safetensors"),
    (r"model\.safetensors\.index\.json", r"model\.safetensors\.index\.json|model-\d{5}-of-\d{5}\.safetensors"),
    (r"pytorch_model\.bin", r"pytorch_model\.bin"),
    (r"pytorch_model\.bin\.index\.json", r"pytorch_model\.bin\.index\.json|pytorch_model-\d{5}-of-\d{5}\.bin"),
    (r"[\w.-]+\.index", r"[\w.-]+\.(index|data-\d{5}-of-\d{5})|checkpoint"),
    (r"mp_rank_\d{2,3}_model_states\.pt", r"mp_rank_\d{2,3}_model_states\.pt"),
    (r"[\w.-]+\.safetensors", r"[\w.-]+\.safetensors"),
    (r"[\w.-]+\.weights\.h5", r"[\w.-]+\.weights\.h5"),
    (OTHER_PICKLES, OTHER_PICKLES),
    *((name, name) for name in (r"tf_model\.h5", r"flax_model\.msgpack", r"[\w.-]+\.(pdparams|gguf)")),
)


def check_names(names: Iterable[str], where: str) -> None:
    """Raises: UnsafeFileError for a name that is absolute or climbs."""
    for name in names:
        if not name or name.startswith("/") or "\\" in name or not name.isprintable() or name[1:2] == ":":
            raise UnsafeFileError(f"{where} lists a file {name!r}, which is no name inside a folder")
        if ".." in PurePosixPath(name).parts:
            raise UnsafeFileError(f"{where} lists a file {name!r}, which climbs out of its folder")


def choose(names: Iterable[str], where: str, *, weights: bool = True) -> list[str]:
    """The files to fetch of one folder, the weights last; with `weights=False` config and vocabulary only.

    Raises: UnknownFormatError when there are no weights in a format known here; UnsafeFileError for two names that some
        disks take for one.
    """
    names = sorted(name for name in names if "/" not in name and not name.startswith("."))
    chosen = [name for name in names if matches(CONFIGS, name)]
    chosen = chosen or [name for name in names if matches(OTHER_CONFIGS, name)]
    chosen += [name for name in names if matches(VOCABULARIES, name) and name not in chosen]
    if not weights:
        return distinct(chosen, where)
    read = [name for name in names if not kind_of(name)]
    for needed, belonging in WEIGHTS:
        if any(matches(needed, name) for name in read):
            found = [name for name in read if matches(belonging, name) and name not in chosen]
            chosen += sorted(found, key=lambda name: name.endswith(".index"))  # whole once that is there
            return distinct(chosen, where)
    raise UnknownFormatError(
        f"{where} has no weights in a format known here (safetensors, PyTorch's .bin, TensorFlow 1's checkpoint ...); "
        f"it holds {', '.join(names[:12]) or 'nothing'}. {explained(names)}".rstrip(". ")
    )


def distinct(names: list[str], where: str) -> list[str]:
    """The names, none of which some disks take for another (case, accents). Raises: UnsafeFileError"""
    seen: dict[str, str] = {}
    for name in names:
        other = seen.setdefault(unicodedata.normalize("NFC", name).casefold(), name)
        if other != name:
            raise UnsafeFileError(f"{where} lists {other!r} and {name!r}, which some disks take for one file")
    return names


def choose_folder(names: Iterable[str], where: str) -> dict[str, str]:
    """The files to take out of an archive, from the one folder of it that holds weights: path there -> name.

    Raises: UnknownFormatError when none or several do.
    """
    folders: dict[str, list[str]] = {}
    for path in names:
        folder, _, name = path.removeprefix("./").rpartition("/")
        if not name.startswith("._") and "__MACOSX" not in folder:
            folders.setdefault(folder, []).append(name)
    holding = [f for f, inside in folders.items() if any(matches(needed, n) for n in inside for needed, _ in WEIGHTS)]
    if len(holding) != 1:
        content = ", ".join(sorted(holding or [name for inside in folders.values() for name in inside])[:12])
        kind = "several folders with weights" if holding else "no weights in a format known here"
        raise UnknownFormatError(f"{where} holds {kind}: {content or 'it is empty'}")
    folder = holding[0]
    return {f"{folder}/{name}".lstrip("/"): name for name in choose(folders[folder], where)}


def matches(pattern: str, name: str) -> bool:
    """Whether the whole name is of a pattern."""
    return re.fullmatch(pattern, name) is not None
