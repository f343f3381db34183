"""Names of files: Keras 3 wants weights in *.weights.h5, and models in *.keras."""

import ast
import re

from bert4x.porting.script import HAND, LOOK, RULE, Script

WEIGHTS = ".weights.h5"
NO_MODELS = (".npy", ".npz", ".json", ".txt", ".png", ".xlsx", ".csv", ".keras")  # what other things save, or is right


def port_file_names(script: Script) -> None:
    """Changes such names wherever they occur."""
    saved, models = set(), set()
    for node in script.nodes(ast.Call):
        method, path = getattr(node.func, "attr", None), node.args[0] if node.args else None
        if path is None or method not in ("save_weights", "load_weights", "save"):
            continue
        name = _text_of(script, path)
        if method == "save":
            models |= {name} if name and not name.endswith(NO_MODELS) else set()
        elif name is None:
            script.note(node, LOOK, f"the name of the file must end in {WEIGHTS}")
        elif method == "save_weights":
            saved.add(name)
        elif name.endswith((".h5", ".hdf5")) and not name.endswith(WEIGHTS) and name not in saved:
            script.note(node, LOOK, "a file that Keras 2 saved loads into the same model of bert4x")
    for node in script.nodes(ast.Constant):
        value = node.value
        if not isinstance(value, str) or "\n" in value:
            continue
        if (value in saved or value.endswith(".weights")) and not value.endswith(WEIGHTS):
            _rename(script, node, re.sub(r"(\.weights|\.h5|\.hdf5|\.ckpt)?$", WEIGHTS, value, count=1))
        elif value in models and not value.endswith(".keras"):
            _rename(script, node, re.sub(r"(\.model|\.h5|\.hdf5)?$", ".keras", value, count=1))


def _text_of(script: Script, node: ast.AST) -> str | None:
    """The text of a constant, or of a name to which one is assigned."""
    if isinstance(node, ast.Name):
        values = [found.value for found in script.nodes(ast.Assign) if node.id in map(script.text, found.targets)]
        node = values[0] if len(values) == 1 else node
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, str) else None


def _rename(script: Script, node: ast.Constant, new: str) -> None:
    """Puts the new end of a file's name into a text."""
    written, ending = script.text(node), WEIGHTS if new.endswith(WEIGHTS) else ".keras"
    same = next((i for i, (a, b) in enumerate(zip(node.value, new, strict=False)) if a != b), len(node.value))
    old = node.value[same:]
    quotes = 3 if written.endswith(("'''", '"""')) else 1
    if isinstance(script.parents.get(node), ast.JoinedStr) or not written[:-quotes].endswith(old):
        script.note(node, HAND, f"the name of the file must end in {ending}")
        return
    stop = script.span(node)[1] - quotes
    script.put(stop - len(old.encode()), stop, new[same:], node)
    script.note(node, RULE, f"Keras 3 wants {ending}")
