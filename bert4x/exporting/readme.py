"""The README.md beside an exported model."""

from bert4x.checkpoints.task_file import FILE
from bert4x.exporting.forward import Exportable

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
VALUES = {
    "token_ids": "[token_ids]",
    "segment_ids": "[segment_ids]",
    "target_ids": "[token_ids]",
    "padding_mask": "[[1] * len(token_ids)]",
    "pooling_mask": "[[1] * len(token_ids)]",
    "position_ids": "[range(len(token_ids))]",
}


def readme(source: Exportable, signature: dict, result) -> str:
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

{" ".join(notes(source, result))}

```python
{snippet(source, signature, result.to)}```
"""


def shape_text(shape: tuple) -> str:
    """A shape for people: (batch, any, 768)."""
    sizes = ["batch", *("any" if size is None else str(size) for size in shape[1:])] if shape[:1] == (None,) else shape
    return f"({', '.join(map(str, sizes))})"


def notes(source: Exportable, result) -> list[str]:
    """What else must be known to use it."""
    pad_id = source.config.pad_token_id if source.config else None
    backbone = getattr(source.model, "backbone", None)
    if "padding_mask" in result.inputs:
        found = ["Padding is where `padding_mask` is 0."]
    elif pad_id is not None:
        found = [f"Fill short rows up on the right, with the token id {pad_id}."]
    else:
        found = ["Fill short rows up on the right, with any id."]
    if backbone is not None and backbone.application in ("lm", "unilm", "seq2seq"):
        found.append("The outputs are those of all places; there is no cache of keys and values.")
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
