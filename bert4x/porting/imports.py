"""Imports of bert4keras, of Keras under TensorFlow, and of scripts beside, to those that run here."""

import ast
import builtins
import functools
import re
from pathlib import Path

from bert4x.porting.script import HAND, IMPORT, LOOK, RULE, Script

PACKAGE = Path(__file__).parents[1]
VERSION = "0.11.5"  # of bert4keras, whose names and orders are here
SUFFIX = "_bert4x"  # of the names of ported scripts
MODULES = ("backend", "layers", "models", "optimizers", "snippets", "tokenizers")
OLD_MODULES = {"tokenizer": "tokenizers", "bert": "models", "train": "optimizers", "utils": "snippets"}
GONE = {"uniout"}  # Python 3 prints Chinese
DATASETS = ("TrainingDatasetRoBERTa", "TrainingDatasetGPT", "TrainingDatasetUniLM")
CORPORA = "bert4x.training.corpora"
LOSSES = {"kullback_leibler_divergence": "kl_divergence", "logcosh": "log_cosh"}  # as Keras 3 calls them
NEW_LAYERS = ("LayerNormalization", "MultiHeadAttention")  # bert4keras' and, since, Keras'
# For scripts that call it on queries, keys and values themselves; those that only name it mean that of models.
ATTENTION = "from bert4x.backend.layers import QueryKeyValueAttention as MultiHeadAttention"
# What `from bert4keras.models import *` brought with it beside what models have.
KERAS_LAYERS = {
    "Activation", "Add", "Average", "BatchNormalization", "Bidirectional", "Concatenate", "Conv1D", "Conv2D", "Dense",
    "Dot", "Dropout", "Flatten", "GRU", "GlobalAveragePooling1D", "GlobalMaxPooling1D", "Input", "LSTM", "Lambda",
    "Layer", "Masking", "MaxPooling1D", "Multiply", "Permute", "RepeatVector", "Reshape", "Softmax", "Subtract",
    "TimeDistributed",
}  # fmt: skip
KERAS_MODULES = {"activations", "constraints", "initializers", "regularizers"}
ALIASES = {"np": "import numpy as np", "tf": "import tensorflow as tf"}


@functools.cache
def statements(module: str) -> list[ast.stmt]:
    """Those of a module or package of bert4x, read and not imported; none if there is no such module."""
    base = PACKAGE.joinpath(*module.split(".")[1:])
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    return ast.parse(path.read_text(encoding="utf-8")).body if path.is_file() else []


def functions(module: str) -> set[str]:
    """The names of a module's functions."""
    return {node.name for node in statements(module) if isinstance(node, ast.FunctionDef)}


@functools.cache
def exported(module: str) -> frozenset[str]:
    """The names in the `__all__` of a module or package; none if there is no such module."""
    for node in statements(module):
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", None) == "__all__":
            return frozenset(ast.literal_eval(node.value))
    return frozenset()


def port_imports(script: Script) -> None:
    """Changes every import that must change, and what depends on the names of modules."""
    for node in script.nodes(ast.Import, ast.ImportFrom):
        if isinstance(node, ast.Import):
            _plain(script, node)
        elif node.level == 0:
            _from(script, node)
    for node in script.nodes(ast.Name):
        parent = script.parents.get(node)
        if node.id == "bert4keras" and getattr(parent, "attr", None) == "__version__":
            script.rewrite(parent, f'"{VERSION}"', IMPORT)
        elif node.id == "bert4keras":
            script.replace(node, "bert4keras", "bert4x", IMPORT)
    for node in script.nodes(ast.Assign):
        if _is_environment(node.targets[0], "TF_KERAS"):
            script.rewrite(node, "", IMPORT)
            script.note(node, IMPORT, "there is one Keras")


def _is_environment(target: ast.AST, variable: str) -> bool:
    """Whether a target is os.environ[variable]."""
    return (
        isinstance(target, ast.Subscript)
        and isinstance(target.value, ast.Attribute)
        and target.value.attr == "environ"
        and getattr(target.slice, "value", None) == variable
    )


def _plain(script: Script, node: ast.Import) -> None:
    for alias in node.names:
        root, *rest = alias.name.split(".")
        if root == "bert4keras":
            new = ".".join(["bert4x", *rest])
            script.replace(alias, alias.name, new, IMPORT)
            script.note(node, IMPORT, new)
            if rest and not exported(new):
                script.note(node, HAND, f"there is no module {new}")
        elif alias.name in ("keras.backend", "tensorflow.keras.backend") and alias.asname and len(node.names) == 1:
            _replace_import(script, node, f"from bert4x.backend import K{_as('K', alias.asname)}")
        elif alias.name == "tensorflow.keras" and alias.asname and len(node.names) == 1:
            _replace_import(script, node, f"import keras{_as('keras', alias.asname)}")
        elif _is_ported(script, alias.name):
            script.replace(alias, alias.name, f"{alias.name}{SUFFIX} as {alias.asname or alias.name}", IMPORT)
            script.note(node, RULE, f"port {alias.name}.py, too")
        elif alias.name.startswith("tensorflow.keras"):
            script.note(node, HAND, "Keras is not part of TensorFlow here: import keras")


def _as(name: str, asname: str | None) -> str:
    return f" as {asname}" if asname not in (None, name) else ""


def _replace_import(script: Script, node: ast.AST, new: str) -> None:
    script.rewrite(node, new, IMPORT)
    script.note(node, IMPORT, new)


def _from(script: Script, node: ast.ImportFrom) -> None:
    root, _, rest = node.module.partition(".")
    if root in ("keras", "tensorflow"):
        _losses(script, node)
    if node.module.endswith("keras.layers") and node.names[0].name == "*":
        _keep_ours(script, node)
    if root == "bert4keras":
        _from_bert4keras(script, node, OLD_MODULES.get(rest, rest))
    elif node.module == "tensorflow" and [alias.name for alias in node.names] == ["keras"]:
        _replace_import(script, node, f"import keras{_as('keras', node.names[0].asname)}")
    elif node.module in ("keras", "tensorflow.keras") and [alias.name for alias in node.names] == ["backend"]:
        _replace_import(script, node, f"from bert4x.backend import K{_as('K', node.names[0].asname or 'backend')}")
    elif node.module.startswith("tensorflow.keras"):
        script.replace(node, node.module, node.module.removeprefix("tensorflow."), IMPORT)
        script.note(node, IMPORT, node.module.removeprefix("tensorflow."))
    elif node.module.startswith("keras.layers."):
        script.replace(node, node.module, "keras.layers", IMPORT)
        script.note(node, IMPORT, "keras.layers")
    elif node.module.startswith(("keras.engine", "keras.legacy", "keras.backend.")):
        script.note(node, HAND, f"Keras 3 has no {node.module}")
    elif "." not in node.module:
        _from_beside(script, node)


def _keep_ours(script: Script, star: ast.ImportFrom) -> None:
    """Layers of bert4keras that Keras has under the same names since, and `*` would put in their place."""
    before = [node for node in script.nodes(ast.ImportFrom) if node.lineno < star.lineno]
    names = [alias.name for node in before if node.module == "bert4keras.layers" for alias in node.names]
    hidden = [name for name in names if name in NEW_LAYERS]
    if hidden:
        again = [ATTENTION] if "MultiHeadAttention" in hidden and _calls(script, "MultiHeadAttention") else []
        script.append(star, [f"from bert4x.layers import {', '.join(hidden)}", *again])


def _losses(script: Script, node: ast.ImportFrom) -> None:
    """Losses that Keras 3 calls otherwise keep their names in the script."""
    for alias in node.names if node.module.endswith((".losses", ".metrics")) else ():
        if alias.name in LOSSES:
            new = f"{LOSSES[alias.name]} as {alias.asname or alias.name}"
            script.rewrite(alias, new, IMPORT)


def _from_bert4keras(script: Script, node: ast.ImportFrom, module: str) -> None:
    """`from bert4keras.M import ...`, to `from bert4x.M import ...`; the text between stays as it is."""
    home = f"bert4x.{module}" if module else "bert4x"
    names = [alias.name for alias in node.names]
    if module == "snippets" and set(names) <= GONE:
        script.rewrite(node, "", IMPORT)
        script.note(node, IMPORT, f"{', '.join(names)}: Python 3 prints Chinese by itself")
        return
    here = {"*"} | exported(home) | (set() if module else set(MODULES))
    homes = {alias: _elsewhere(alias.name) for alias in node.names if alias.name not in here}
    strays = [alias for alias in node.names if homes.get(alias)]
    unread = [alias for alias in homes if not _read(script, alias)]
    for alias in homes:
        if alias not in strays and alias.name not in GONE:
            kind, more = (LOOK, ", and nothing here reads it") if alias in unread else (HAND, "")
            script.note(node, kind, f"{home} has no {alias.name}{more}")
    lines = _imports({alias.name + _as(alias.name, alias.asname): homes[alias] for alias in strays})
    if module == "layers" and {"*", "MultiHeadAttention"} & set(names) and _calls(script, "MultiHeadAttention"):
        lines.append(ATTENTION)
    gone = [alias for alias in node.names if alias.name in GONE or alias in strays or alias in unread]
    if len(gone) == len(node.names):
        script.rewrite(node, *lines or [""], IMPORT)
        return
    script.replace(node, node.module, home, IMPORT)
    script.note(node, IMPORT, home)
    _drop_names(script, node, gone)
    if lines:
        script.append(node, lines)
    if names == ["*"]:
        _star(script, node, home)


def _elsewhere(name: str) -> str | None:
    """Which module has a name that bert4keras' modules get from one another by `*`; none if no module here has it."""
    return next((home for home, known in _homes().items() if name in known), None)


def _imports(homes: dict[str, str]) -> list[str]:
    """Statements that import names, or `name as other`, each from its module."""
    return [
        f"from {home} import {', '.join(name for name in homes if homes[name] == home)}"
        for home in _homes()
        if home in homes.values()
    ]


@functools.cache
def _homes() -> dict[str, frozenset[str] | set[str]]:
    homes = {"bert4x.backend": {"K", "keras"} | exported("bert4x.backend"), "keras": KERAS_MODULES}
    homes |= {"keras.layers": KERAS_LAYERS, "bert4x.backend.layers": exported("bert4x.backend.layers")}
    return homes | {f"bert4x.{module}": exported(f"bert4x.{module}") for module in MODULES}


def _calls(script: Script, name: str) -> bool:
    """Whether a script calls what has a name."""
    return any(getattr(node.func, "id", None) == name for node in script.nodes(ast.Call))


def _read(script: Script, alias: ast.alias) -> bool:
    """Whether a script reads what an import binds."""
    return (alias.asname or alias.name) in script.read


def _drop_names(script: Script, node: ast.ImportFrom, gone: list[ast.alias]) -> None:
    """Takes some of the names out of an import, with their commas."""
    kept = [place for place, alias in enumerate(node.names) if alias not in gone]
    if kept[0]:
        script.cut(script.span(node.names[0])[0], script.span(node.names[kept[0]])[0], node)
    for place in range(kept[0] + 1, len(node.names)):
        if place not in kept:
            script.cut(script.span(node.names[place - 1])[1], script.span(node.names[place])[1], node)


def _star(script: Script, node: ast.ImportFrom, home: str) -> None:
    """Names that `*` brought from other modules are imported by name, and those that are not here are named."""
    missing = script.read - script.bound - exported(home) - set(dir(builtins))
    found = {name: other for name in sorted(missing) if (other := _elsewhere(name)) not in (None, home)}
    lines = [ALIASES[name] for name in sorted(missing & ALIASES.keys())] + _imports(found)
    missing -= ALIASES.keys() | found.keys()
    if lines:
        script.append(node, lines)
        script.bound |= {name for line in lines for name in re.split(r" as |, | import ", line)[1:]}
    stars = [one.module for one in script.nodes(ast.ImportFrom) if one.names[0].name == "*"]
    for name in sorted(missing - {"__file__"}) if stars == [node.module] else ():  # of several, another may bring it
        script.note(node, HAND, f"{home} has no {name}")
    script.note(node, LOOK, "* brings the names in bert4x' __all__, fewer than bert4keras' * brought")


def _from_beside(script: Script, node: ast.ImportFrom) -> None:
    """A script of bert4keras' that imports another one of them."""
    used = [name for name in DATASETS if name in script.read or name in [alias.name for alias in node.names]]
    if node.module == "data_utils" and used:
        _replace_import(script, node, f"from {CORPORA} import {', '.join(used)}")
        return
    if _is_ported(script, node.module):
        script.replace(node, node.module, node.module + SUFFIX, IMPORT)
        script.note(node, RULE, f"port {node.module}.py, too")


def _is_ported(script: Script, module: str) -> bool:
    """Whether a module beside a script uses bert4keras."""
    beside = (script.folder or Path()) / f"{module}.py"
    return beside.is_file() and b"bert4keras" in beside.read_bytes()
