"""task.json: which task a folder's head is of, and its settings."""

from pathlib import Path
from typing import Any

from bert4x.errors import CorruptFileError
from bert4x.json_files import check_kinds, read_json, shown

FILE = "task.json"
# What task.json may say: the kinds of its settings, and which of them may be null.
NUMBERS = ("dropout", "lr_multiplier", "start_threshold", "end_threshold", "scale", "threshold", "negatives")
INTEGERS = ("maxlen", "head_size", "stride", "longest_answer", "longest_question", "max_target", "num_beams")
KINDS = {
    **dict.fromkeys(("labels", "tags", "schema", "steps", "dimensions"), (list,)),
    **dict.fromkeys(NUMBERS, (int, float)),
    **dict.fromkeys(INTEGERS, (int,)),
    **dict.fromkeys(("multi_label", "pooler", "transform", "include_prompt", "lower_case"), (bool,)),
    **dict.fromkeys(("method", "long", "problem_type", "default_prompt", "similarity_name", "hidden_act"), (str,)),
    "pooling": (str, list),
    "prompts": (dict,),
}
NULLABLE = ("labels", "tags", "problem_type", "pooler", "hidden_act", "stride", "lr_multiplier", "head_size")
# Settings of some methods only; files of earlier versions have them for every method.
OF_METHODS = {
    "lr_multiplier": ("crf", "memm", "bi-memm"),
    "head_size": ("global-pointer", "efficient-global-pointer"),
}
MAX_SETTING = 1 << 20


def read_task_file(path: Path) -> tuple[str, dict[str, Any]]:
    """The name of a task, and its settings, which are of the kinds that they should be. Raises: CorruptFileError."""
    data = read_json(path)
    if not isinstance(data.get("task"), str) or not isinstance(data.get("settings"), dict):
        raise CorruptFileError(f'{path} holds no task; expected {{"task": name, "settings": ...}}')
    settings = data["settings"]
    check_kinds(settings, KINDS, f"{path}: settings")
    for key, value in settings.items():
        if value is None and key not in NULLABLE:
            raise CorruptFileError(f"{path}: settings: {key!r} is null")
        if isinstance(value, int | float) and not 0 <= value <= MAX_SETTING:  # NaN is not, either
            raise CorruptFileError(f"{path}: settings: {key!r} is {shown(value)}; expected 0 to {MAX_SETTING}")
        if key in ("labels", "tags") and not all(isinstance(label, str | int | float) for label in value or ()):
            raise CorruptFileError(f"{path}: settings: {key!r} is {shown(value)}; expected a list of strings")
    method = settings.get("method")
    return data["task"], {k: v for k, v in settings.items() if not method or method in OF_METHODS.get(k, (method,))}
