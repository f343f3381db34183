"""The README.md beside an exported model."""

from bert4x.checkpoints.task_file import FILE
from bert4x.exporting.forward import Exportable, application_of

SENTENCE = "今天天气很好，我们去公园散步吧。"
IMPORTS = {"onnx": "import onnxruntime", "openvino": "import openvino", "savedmodel": "import tensorflow as tf"}
CALLS = {
    "onnx": """\
session = onnxruntime.InferenceSession("model.onnx")
outputs = dict(zip([output.name for output in session.get_outputs()], session.run(None, inputs)))
""",
    "openvino": """\
# Where the processor has bfloat16, it is computed in: {"INFERENCE_PRECISION_HINT": "f32"} as a third argument is exact.
compiled = openvino.Core().compile_model("model.xml", "CPU")
found = compiled(inputs)
outputs = {output.any_name: found[output] for output in compiled.outputs}
""",
    "savedmodel": """\
model = tf.saved_model.load("model")
outputs = {name: values.numpy() for name, values in model.serve(inputs).items()}
""",
}
# What answers on text: the call that opens the folder, and one on a text.
TASK = 'task = bert4x.pipeline("{}", ".")', 'print(task("{}"))'
ON_TEXT = {
    "reading-comprehension": (TASK[0], 'print(task("我们去哪里散步？", "{}"))'),
    "sentence-embedding": ('embed = bert4x.embedder(".")', 'print(embed(["{}"]).shape)'),
    "fill-mask": (TASK[0], 'print(task("今天天[MASK]很好。"))'),
    "text-generation": ('model = bert4x.load(".")', 'print(model.generate("今天天气", max_new_tokens=8))'),
}
VALUES = {
    "token_ids": "[token_ids]",
    "segment_ids": "[segment_ids]",
    "target_ids": "[token_ids]",
    "padding_mask": "[[1] * len(token_ids)]",
    "pooling_mask": "[[1] * len(token_ids)]",
    "position_ids": "[range(len(token_ids))]",
}


def readme(source: Exportable, signature: dict, result, writes: bool) -> str:
    """What the model takes and gives, how to run it, and how exact it is."""
    quantized = f", {result.quantize}" if result.quantize else ""
    rows = [f"| `{name}` | {spec.dtype} {shape_text(spec.shape)} | input |" for name, spec in signature.items()]
    rows += [
        f"| `{name}` | float32 {shape_text(shape)} | output, up to {result.scales[name]:.3g} in the batches compared; "
        f"at most {result.differences[name]:.1e} from Keras |"
        for name, shape in result.outputs.items()
    ]
    return f"""\
# {source.config.model if source.config else "A model"} for {result.to}{quantized}

Written by `bert4x export`. Rows and tokens may be as many as you like, up to the model's positions.

| name | shape | |
|---|---|---|
{chr(10).join(rows)}

{on_text(source, result, writes)}{" ".join(notes(source, result, writes))}

```python
{snippet(source, signature, result.to)}```
"""


def on_text(source: Exportable, result, writes: bool) -> str:
    """How bert4x answers on text from this folder, without Keras; nothing where no task of it does."""
    name = source.task and source.task.name
    name = "triple-extraction" if name == "gplinker" else name
    if name is None and application_of(source) == "encoder" and "logits" in result.outputs:
        name = "fill-mask"
    name = "text-generation" if name is None and writes else name
    if name is None or source.tokenizer is None or source.config is None:
        return ""
    opening, call = (line.format(x) for line, x in zip(ON_TEXT.get(name, TASK), (name, SENTENCE), strict=True))
    runtime = "" if result.to == "savedmodel" else ", and imports neither Keras nor TensorFlow"
    return f"""\
bert4x opens this folder as any other{runtime}:

```python
import bert4x

{opening}
{call}
```

Without bert4x, here is what the file takes and gives.
"""


def shape_text(shape: tuple) -> str:
    """A shape for people: (batch, any, 768)."""
    sizes = ["batch", *("any" if size is None else str(size) for size in shape[1:])] if shape[:1] == (None,) else shape
    return f"({', '.join(map(str, sizes))})"


def notes(source: Exportable, result, writes: bool) -> list[str]:
    """What else must be known to use it."""
    pad_id = source.config.pad_token_id if source.config else None
    builder = getattr(source.model, "builder", None)
    if "padding_mask" in result.inputs:
        found = ["Padding is where `padding_mask` is 0."]
    elif pad_id is not None:
        found = [f"Fill short rows up on the right, with the token id {pad_id}."]
    else:
        found = ["Fill short rows up on the right, with any id."]
    if builder is not None and builder.application in ("lm", "unilm", "seq2seq"):
        cache = "the graph `decoder`, which generates, has one" if writes else "there is none"
        found.append(f"The outputs are those of all places, without a cache of keys and values; {cache}.")
    if source.task is not None:
        found.append(f"What the scores are of is in `{FILE}`.")
    return found


def snippet(source: Exportable, signature: dict, to: str) -> str:
    """Python that runs the export from within its folder."""
    lines = ["import numpy as np", IMPORTS[to], ""]
    if source.tokenizer is not None:
        lines += ["import bert4x", "", 'tokenizer = bert4x.load_tokenizer(".")']
        lines += [f'token_ids, segment_ids = tokenizer.encode("{SENTENCE}")']
    else:
        lines += ["token_ids, segment_ids = [1, 2, 3], [0, 0, 0]"]
    lines += ["inputs = {"]
    for name, spec in signature.items():
        zeros = f"np.zeros({tuple(size or 1 for size in spec.shape)})"
        lines += [f'    "{name}": np.array({VALUES.get(name, zeros)}, "{spec.dtype}"),']
    shapes = "print({name: values.shape for name, values in outputs.items()})\n"
    return "\n".join([*lines, "}", CALLS[to] + shapes])
