"""NumPy's arrays among tensors, as a layer's `call` may have them: PyTorch does not compute with both."""

import ast

from bert4x.porting.script import RULE, Script

METHODS = ("call", "compute_loss")


def port_numpy_arrays(script: Script) -> None:
    """In methods of layers, arrays that NumPy made become constants where they are computed with."""
    if "K" not in script.bound:
        return
    for method in script.nodes(ast.FunctionDef):
        if method.name not in METHODS:
            continue
        inside = list(ast.walk(method))
        made = [node for node in inside if isinstance(node, ast.Assign) and is_of_numpy(node.value)]
        arrays = {name.id for node in made for name in node.targets if isinstance(name, ast.Name)}
        for node in inside:
            for side in (node.left, node.right) if isinstance(node, ast.BinOp) else ():
                if isinstance(side, ast.Name) and side.id in arrays:
                    script.rewrite(side, f"K.constant({side.id})")
                    script.note(side, RULE, f"{side.id} is NumPy's, which PyTorch computes with no tensor")


def is_of_numpy(node: ast.expr) -> bool:
    """Whether an expression is a call of NumPy's."""
    return isinstance(node, ast.Call) and getattr(getattr(node.func, "value", None), "id", None) == "np"
