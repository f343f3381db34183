"""Lines other than imports: what Keras 3 calls otherwise is changed by rule, what it lacks is named."""

import ast
import re

from bert4x.porting.file_names import port_file_names
from bert4x.porting.imports import functions
from bert4x.porting.numpy_arrays import port_numpy_arrays
from bert4x.porting.script import HAND, LOOK, RULE, Script

RENAMED_METHODS = {"fit_generator": "fit", "predict_generator": "predict", "evaluate_generator": "evaluate"}
WORKERS = ("workers", "use_multiprocessing", "max_queue_size", "max_q_size", "nb_worker", "pickle_safe")
OLD_METHODS = {"set_rtype": "wraps"}  # bert4keras' own, of its versions before 0.8
OLD_KEYWORDS = {"encode": ("max_length", "maxlen"), "tokenize": ("max_length", "maxlen")}
OLD_KEYWORDS |= {"load_vocab": ("startwith", "startswith")}
OLD_TOKENS = {"_token_cls_id": "_token_start_id", "_token_sep_id": "_token_end_id"}
TENSORFLOW_1 = {  # names of TensorFlow 1, of the same functions
    "log": "math.log", "rsqrt": "math.rsqrt", "ceil": "math.ceil", "is_nan": "math.is_nan", "lgamma": "math.lgamma",
    "matrix_band_part": "linalg.band_part", "matrix_diag": "linalg.diag", "set_random_seed": "random.set_seed",
    "random_uniform": "random.uniform", "random_normal": "random.normal", "truncated_normal": "random.truncated_normal",
}  # fmt: skip
OPTIMIZER = re.compile(r"Adam|SGD|RMSprop|Adagrad|Adadelta|AdaFactor|Nadam|Lion|Optimizer")
ADVERSARIES_HOME = "bert4x.training.adversarial"
PRIVATE = ("_make_train_function", "train_function", "total_loss", "_feed_inputs", "_feed_targets", "metrics_tensors")
TENSORFLOW = "TensorFlow's own functions, from here on: on the TensorFlow backend only"
FREEZING = "bert4x.training.freezing"
FROZEN = "Keras 3 freezes when fit begins, Keras 2 when a model is compiled: as_compiled keeps what was so then"
SESSIONS = ("Session", "ConfigProto", "get_session", "set_session", "global_variables_initializer", "placeholder")


def port_rest(script: Script) -> None:
    """Changes by rule and names by hand, in everything but imports."""
    replaced = _adversaries(script)
    for node in script.nodes(ast.Call):
        if not any(node in inside for inside in replaced):
            _call(script, node)
    port_file_names(script)
    port_numpy_arrays(script)
    _scalar_losses(script)
    _layers_of_losses(script)
    _frozen_after_compiling(script)
    _layers_within_layers(script)
    _own_masks(script)
    _losses_of_models(script)
    for node in script.nodes(ast.FunctionDef):
        if node.name == "get_updates":
            script.note(node, HAND, "Keras 3's optimizers have update_step(gradient, variable, learning_rate) instead")
    for node in script.nodes(ast.Attribute):
        if not any(node in inside for inside in replaced):
            _attribute(script, node)


def _adversaries(script: Script) -> list[set[ast.AST]]:
    """bert4keras' scripts against adversaries carry a function that replaces Keras 2's own; here it is imported."""
    gone, here = [], functions(ADVERSARIES_HOME)
    for node in script.nodes(ast.FunctionDef):
        inside = set(ast.walk(node))
        if node.name in here and "train_function" in {getattr(inner, "attr", "") for inner in inside}:
            script.rewrite(node, f"from {ADVERSARIES_HOME} import {node.name}")
            script.note(node, RULE, f"{node.name} was Keras 2's train_function, here it is bert4x' own")
            gone.append(inside)
            _keep_epsilon(script, node)
    return gone


def _keep_epsilon(script: Script, function: ast.FunctionDef) -> None:
    """Calls that left epsilon to the function that is gone say what it was."""
    names = [argument.arg for argument in function.args.args]
    defaults = dict(zip(reversed(names), reversed(function.args.defaults), strict=False))
    if "epsilon" not in defaults:
        return
    for node in script.nodes(ast.Call):
        given = names[: len(node.args)] + [keyword.arg for keyword in node.keywords]
        if getattr(node.func, "id", None) == function.name and "epsilon" not in given:
            end = script.span(node)[1] - 1
            script.put(end, end, f", epsilon={script.text(defaults['epsilon'])}", node)
            script.note(node, RULE, "epsilon as in the function that was here")


def _call(script: Script, node: ast.Call) -> None:
    method = getattr(node.func, "attr", None)
    name = method or getattr(node.func, "id", "")
    keywords = {keyword.arg: keyword for keyword in node.keywords}
    if method in RENAMED_METHODS:
        _method(script, node, RENAMED_METHODS[method])
        told = [keyword for keyword in WORKERS if keyword in keywords]
        for name in told:
            _drop_keyword(script, node, keywords[name])
            script.note(node, RULE, f"Keras 3's {RENAMED_METHODS[method]} takes no {name}")
    if method in OLD_METHODS:
        _method(script, node, OLD_METHODS[method])
    old, new = OLD_KEYWORDS.get(name, (None, None))
    if old in keywords and (name == "load_vocab" or "tokenizer" in script.text(node.func)):
        script.replace(keywords[old], old, new)
        script.note(node, RULE, f"{old} is {new}")
    if name == "sequence_padding" and "zeros" in script.text(node).partition("padding=")[2]:
        _drop_keyword(script, node, keywords["padding"])
        script.note(node, RULE, "it pads with zeros of any shape")
    if method == "save_weights" and "save_format" in keywords:
        _drop_keyword(script, node, keywords["save_format"])
        script.note(node, RULE, "the end of the name says the format")
    if "lr" in keywords and (OPTIMIZER.search(name) or name in _extended(script)):
        script.replace(keywords["lr"], "lr", "learning_rate")
        script.note(node, RULE, "lr is learning_rate")
    if "decay" in keywords and OPTIMIZER.search(name):
        script.note(node, HAND, "decay: give a schedule, such as extend_with_piecewise_linear_lr, instead")
    if name == "multi_gpu_model":
        script.note(node, HAND, "multi_gpu_model: see Several devices in the documentation, or tf.distribute")


def _extended(script: Script) -> set[str]:
    """Names of optimizers that the script made by extend_with_..."""
    return {
        target.id
        for node in script.nodes(ast.Assign)
        if isinstance(node.value, ast.Call) and "extend_with_" in script.text(node.value.func)
        for target in node.targets
        if isinstance(target, ast.Name)
    }


def _method(script: Script, node: ast.Call, new: str) -> None:
    old = node.func.attr
    end = script.span(node.func)[1]
    script.put(end - len(old), end, new, node)
    script.note(node, RULE, f"{old} is {new}")


def _drop_keyword(script: Script, node: ast.Call, gone: ast.keyword) -> None:
    """Takes a keyword out of a call, with the comma before it."""
    given = [*node.args, *node.keywords]
    place, (start, end) = given.index(gone), script.span(gone)
    script.put(script.span(given[place - 1])[1] if place else start, end, "", node)


def _scalar_losses(script: Script) -> None:
    """Layers that compute a loss, under whose name a dict has what becomes of it: Keras 3 takes no scalars there."""
    keys = {getattr(key, "value", None) for node in script.nodes(ast.Dict) for key in node.keys}
    functions = {
        node.args[0].id
        for node in script.nodes(ast.Call)
        if getattr(node.func, "id", getattr(node.func, "attr", None)) == "Lambda" and node.args
        if isinstance(node.args[0], ast.Name)
        if any(k.arg == "name" and getattr(k.value, "value", None) in keys for k in node.keywords)
    }
    for function in script.nodes(ast.FunctionDef):
        for node in ast.walk(function) if function.name in functions and "K" in script.bound else ():
            if isinstance(node, ast.Return) and node.value is not None:
                script.rewrite(node.value, f"K.reshape({script.text(node.value)}, (1,))")
                script.note(node, RULE, "Keras 3 wants an axis in the output of a layer whose name is that of a loss")


def _layers_of_losses(script: Script) -> None:
    """A loss that looks for a layer behind `y_pred`: with Keras 3 that is a tensor, which remembers no layers."""
    models = {
        keyword.value.id: script.text(node.func.value)
        for node in script.nodes(ast.Call)
        if getattr(node.func, "attr", None) == "compile"
        for keyword in node.keywords
        if keyword.arg == "loss" and isinstance(keyword.value, ast.Name)
    }
    for function in script.nodes(ast.FunctionDef):
        parameters = {argument.arg for argument in function.args.args}
        calls = [
            node for node in ast.walk(function) if getattr(getattr(node, "func", None), "id", None) == "search_layer"
        ]
        for node in calls if function.name in models else ():
            if len(node.args) == 2 and getattr(node.args[0], "id", None) in parameters:
                script.rewrite(node, f"{models[function.name]}.get_layer({script.text(node.args[1])})")
                script.note(node, RULE, "the tensors of a loss remember no layers; the model has them")


def _set_to_false(script: Script, node: ast.Attribute) -> bool:
    """Whether it is `trainable`, and given False."""
    value = getattr(script.parents.get(node), "value", None)
    return node.attr == "trainable" and isinstance(node.ctx, ast.Store) and getattr(value, "value", None) is False


def _frozen_after_compiling(script: Script) -> None:
    """Where a script compiles several models and freezes layers, each model trains what was trainable when it was
    compiled.
    """
    compiled = [node for node in script.nodes(ast.Call) if getattr(node.func, "attr", None) == "compile"]
    if len(compiled) < 2 or not any(_set_to_false(script, node) for node in script.nodes(ast.Attribute)):
        return
    for node in compiled:
        script.rewrite(node.func.value, f"as_compiled({script.text(node.func.value)})")
        script.note(node, RULE, FROZEN)
    _import_below(script, f"from {FREEZING} import as_compiled")


def _layers_within_layers(script: Script) -> None:
    """A layer that makes others in `build`: where it has `compute_output_shape`, Keras 3 does not call it before it
    trains, and those within would have no weights until then.
    """
    for layer in script.nodes(ast.ClassDef):
        methods = {node.name: node for node in layer.body if isinstance(node, ast.FunctionDef)}
        if "build" in methods and "call" in methods and "compute_output_shape" in methods:
            values = [node.value for node in ast.walk(methods["build"]) if isinstance(node, ast.Assign)]
            made = [
                getattr(value.func, "id", getattr(value.func, "attr", ""))
                for value in values
                if isinstance(value, ast.Call)
            ]
            if any(name[:1].isupper() for name in made):
                script.rewrite(methods["compute_output_shape"], "")
                script.note(layer, RULE, "Keras 3 finds the shape in `call`, and so makes the layers within it")


def _own_masks(script: Script) -> None:
    """A layer with a mask of its own that gives an input as it is: for Keras 3 that tensor keeps its old mask."""
    for layer in script.nodes(ast.ClassDef) if "K" in script.read else ():
        methods = {node.name: node for node in layer.body if isinstance(node, ast.FunctionDef)}
        arguments = methods["call"].args.args if "compute_mask" in methods and "call" in methods else []
        for node in ast.walk(methods["call"]) if len(arguments) > 1 else ():
            value = getattr(node, "value", None) if isinstance(node, ast.Return) else None
            if getattr(getattr(value, "value", value), "id", None) == arguments[1].arg:
                script.rewrite(value, f"K.identity({script.text(value)})")
                script.note(node, RULE, "a new tensor, which takes the mask of compute_mask")


def _losses_of_models(script: Script) -> None:
    """`model.add_loss(loss)` of a finished model makes another model with the loss in it."""
    calls = [node.value for node in script.nodes(ast.Expr) if isinstance(node.value, ast.Call)]
    calls = [node for node in calls if getattr(node.func, "attr", None) == "add_loss" and len(node.args) == 1]
    calls = [node for node in calls if isinstance(node.func.value, ast.Name) and node.func.value.id != "self"]
    for node in calls:
        model, start = node.func.value.id, script.span(node.func)
        script.put(*start, f"{model} = with_loss", node)
        script.put(script.span(node.args[0])[0], script.span(node.args[0])[0], f"{model}, ", node)
        script.note(node, RULE, "Keras 3's models are finished; with_loss makes another over the same layers")
    if calls:
        _import_below(script, "from bert4x.layers import with_loss")


def _import_below(script: Script, line: str) -> None:
    """Adds an import below the last one at the top of a script."""
    imports = [node for node in script.tree.body if isinstance(node, ast.Import | ast.ImportFrom)]
    script.append(imports[-1], [line])


def _tf_keras(script: Script, node: ast.Attribute) -> None:
    """`tf.keras` is `keras`, which is imported beside TensorFlow where it is not yet; `tf.eye(n)` is in it."""
    imports = [one for one in script.nodes(ast.Import) if any(alias.asname == "tf" for alias in one.names)]
    if "keras" not in script.bound and not imports:
        script.note(node, HAND, "tf.keras: write keras, and import it")
        return
    if "keras" not in script.bound:
        script.append(imports[0], ["import keras"])
        script.bound.add("keras")
    name = "keras" if node.attr == "keras" else f"keras.ops.{node.attr}"
    script.rewrite(node, name)
    script.note(node, RULE, f"tf.{node.attr} is {name}")


def _is_plain_eye(script: Script, node: ast.Attribute) -> bool:
    """Whether this is the function of `tf.eye(n)`."""
    call = script.parents.get(node)
    return node.attr == "eye" and isinstance(call, ast.Call) and call.func is node and not call.keywords + call.args[1:]


def _within_function(script: Script, node: ast.AST | None) -> bool:
    """Whether a node is computed when a function is called, not when the script is read."""
    while node is not None and not isinstance(node, ast.FunctionDef | ast.Lambda):
        node = script.parents.get(node)
    return node is not None


def _attribute(script: Script, node: ast.Attribute) -> None:
    root = getattr(node.value, "id", None)
    if root == "tf" and (node.attr == "keras" or _is_plain_eye(script, node)):
        _tf_keras(script, node)
    elif node.attr in SESSIONS and root in ("tf", "K"):
        script.note(node, HAND, f"{root}.{node.attr}: there are no sessions any more; delete")
    elif root == "tf" and node.attr in TENSORFLOW_1 and "tf" in script.bound:
        script.rewrite(node, f"tf.{TENSORFLOW_1[node.attr]}")
        script.note(node, RULE, f"tf.{node.attr} was a name of TensorFlow 1")
    elif node.attr in OLD_TOKENS:
        script.rewrite(node, f"{script.text(node.value)}.{OLD_TOKENS[node.attr]}")
        script.note(node, RULE, f"{node.attr} is {OLD_TOKENS[node.attr]}")
    elif root == "tf" and not any(note.text == TENSORFLOW for note in script.notes):
        script.note(node, LOOK, TENSORFLOW)
    elif root == "K" and node.attr == "gradients" and not _within_function(script, node):
        script.note(node, HAND, "K.gradients knows nothing of a model's symbolic tensors; move it into a function")
    elif root == "K" and node.attr in ("gradients", "function"):
        script.note(node, LOOK, f"K.{node.attr} runs on the TensorFlow backend only")
    elif node.attr == "add_metric" and root not in (None, "self"):
        script.note(node, HAND, "Keras 3's models have no add_metric; a bert4x.layers.Loss has")
    elif node.attr in PRIVATE:
        script.note(node, HAND, f"Keras 3 has no {node.attr}; see Training in the documentation")
    elif node.attr == "get_output_at" and isinstance(script.parents.get(node), ast.Call):
        script.note(node, LOOK, "get_output_at is there for layers of bert4x, not for those of Keras")
