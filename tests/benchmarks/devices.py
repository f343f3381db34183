"""What it costs to divide a model over devices: `python -m tests.benchmarks.devices`, on eight virtual CPU devices.

For every mesh (data x model), one pass forward and one step of training: its time, how often and how many bytes each
device gives to the others (counted in the compiled program, so that it does not depend on the clock), and the time of
that alone. `--memory` prints instead what each device holds, by the layout, without building anything.

Virtual devices share one memory and one machine's cores: adding devices adds no speed here, and communication is a copy
within the memory. The counts are those of real devices; the times are not.
"""

import argparse
import json
import math
import os
import re
import statistics
import time

SIZES = {  # hidden size, layers, heads, vocabulary, positions
    "GPT2-small": (768, 12, 12, 50257, 1024),
    "CPM-LM": (2560, 32, 32, 30000, 1024),
    "7 billion": (4096, 32, 32, 50304, 2048),
    "13 billion": (5120, 40, 40, 50304, 2048),
    "70 billion": (8192, 86, 64, 50304, 2048),
}
MESHES = ((1, 1), (8, 1), (1, 2), (1, 4), (1, 8), (2, 4))
BYTES = {"f64": 8, "f32": 4, "s32": 4, "u32": 4, "f16": 2, "bf16": 2, "s64": 8, "pred": 1}
COLLECTIVE = re.compile(
    r"= (?P<shapes>.*?) (?P<kind>all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute)(?:-start)?\("
)


def config_of(hidden: int, layers: int, heads: int, vocabulary: int, positions: int):
    """A GPT2 of these sizes."""
    from bert4x.config import TransformerConfig

    return TransformerConfig(
        model="gpt2", vocab_size=vocabulary, hidden_size=hidden, num_hidden_layers=layers, num_attention_heads=heads,
        intermediate_size=4 * hidden, max_position=positions, segment_vocab_size=0, hidden_act="gelu_tanh",
        layer_norm_eps=1e-5, dropout_rate=0.1, attention_dropout_rate=0.1, pad_token_id=None,
    )  # fmt: skip


def parameters_held(config, model: int) -> int:
    """Parameters on each device of those that divide a model: by the layout alone."""
    from bert4x.checkpoints.tables import variables
    from bert4x.devices import parts

    return sum(math.prod(shape) // parts(path, shape, model) for path, (shape, _) in variables(config).items())


def memory() -> None:
    """Prints GB on each device: weights to use in float32 and bfloat16, and all that training with AdamW holds."""
    print("| model | parameters | devices | float32 | bfloat16 | training, AdamW | cache, 1,024 tokens, bfloat16 |")
    print("|---|---|---|---|---|---|---|")
    for name, sizes in SIZES.items():
        config = config_of(*sizes)
        hidden, layers, heads = sizes[:3]
        whole = parameters_held(config, 1)
        for n in (1, 2, 4, 8):
            if heads % n == 0:
                held = parameters_held(config, n)
                cache = 2 * layers * hidden * 1024 * 2 / n
                numbers = (f"{size / 1e9:.2f}" for size in (4 * held, 2 * held, 16 * held, cache))
                print(f"| {name} | {whole / 1e9:.2f} billion | {n} | {' | '.join(numbers)} |")


def communication(program: str) -> tuple[int, int]:
    """How often, and how many bytes, the devices of a compiled program exchange: results of its collectives.

    Loops are counted once; there are none in a pass forward or a step.
    """
    found = [match["shapes"] for match in COLLECTIVE.finditer(program)]
    sizes = [
        BYTES[kind] * math.prod(int(n) for n in shape.split(",") if n)
        for shapes in found
        for kind, shape in re.findall(r"(\w+)\[([\d,]*)\]", shapes)
        if kind in BYTES
    ]
    return len(found), sum(sizes)


def median_ms(function, repeats: int) -> float:
    """Milliseconds of a call, once it is compiled."""
    import jax

    jax.block_until_ready(function())
    times = []
    for _ in range(repeats):
        begin = time.perf_counter()
        jax.block_until_ready(function())
        times.append(1000 * (time.perf_counter() - begin))
    return statistics.median(times)


def summing_ms(size: int, mesh, repeats: int) -> float:
    """Milliseconds in which all devices add up so many bytes, and do nothing else."""
    import jax
    from jax.sharding import PartitionSpec

    axes = tuple(mesh.axis_names)
    values = jax.numpy.ones(max(1, size // 4), "float32")
    add = jax.jit(
        jax.shard_map(
            lambda x: jax.lax.psum(x, axes), mesh=mesh, in_specs=PartitionSpec(), out_specs=PartitionSpec(),
            check_vma=False,
        )
    )  # fmt: skip
    return median_ms(lambda: add(values), repeats)


def measure(data: int, model: int, args) -> list[dict]:
    """One pass forward, and one step of training, on a mesh."""
    import jax
    import keras
    import numpy as np
    from keras import ops

    import bert4x
    from bert4x.models.build import build_transformer_model
    from bert4x.training.compiled import divided
    from bert4x.training.trainer import Trainer

    config = config_of(args.hidden, args.layers, args.heads, args.vocabulary, args.length)
    distribution = bert4x.distribution(data, model)
    ids = np.random.default_rng(0).integers(0, args.vocabulary, (args.batch, args.length + 1)).astype("int32")
    with distribution.scope():
        lm = build_transformer_model(config.to_dict(), model="gpt2", application="lm", with_mlm="linear")

        def loss(outputs, targets):
            return ops.mean(keras.losses.sparse_categorical_crossentropy(targets, outputs, from_logits=True))

        trainer = Trainer(lm, loss, keras.optimizers.AdamW(1e-4))
        batch = divided(((ids[:, :-1],), ids[:, 1:]))

        def forward(values, ids):
            with keras.StatelessScope(zip(lm.variables, values, strict=True)):
                return lm([ids])

        values = [v.value for v in lm.variables]
        program = jax.jit(forward).lower(values, batch[0][0]).compile()
        step = trainer._learn.lower(*batch).compile()
        results = []
        for what, text, run in (
            ("forward", program.as_text(), lambda: program(values, batch[0][0])),
            ("training", step.as_text(), lambda: trainer.learn([batch], 1e-4)),
        ):
            count, size = communication(text)
            alone = summing_ms(size, distribution.device_mesh.backend_mesh, args.repeats) if size else 0.0
            results.append({
                "data": data, "model": model, "what": what, "ms": median_ms(run, args.repeats), "exchanges": count,
                "megabytes": size / 1e6, "exchange_ms": alone,
            })  # fmt: skip
    return results


def main() -> None:
    """Prints a table, and JSON with --json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    sizes = {"hidden": 256, "layers": 4, "heads": 8, "vocabulary": 8000, "length": 128, "batch": 8, "repeats": 5}
    for name, value in sizes.items():
        parser.add_argument(f"--{name}", type=int, default=value)
    parser.add_argument("--memory", action="store_true", help="print what each device holds, and measure nothing")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    if args.memory:
        return memory()
    print("| data x model | what | ms | exchanges | MB on each device | the same exchange alone, ms |")
    print("|---|---|---|---|---|---|")
    for mesh in MESHES:
        for row in measure(*mesh, args):
            figures = f"{row['ms']:.1f} | {row['exchanges']} | {row['megabytes']:.2f} | {row['exchange_ms']:.2f}"
            print(f"| {row['data']} x {row['model']} | {row['what']} | {figures} |", flush=True)
            if args.json:
                print(json.dumps(row))
    return None


if __name__ == "__main__":
    os.environ["KERAS_BACKEND"] = "jax"
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()
    main()
