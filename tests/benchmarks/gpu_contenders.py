"""What the processes of `tests.benchmarks.gpu` do: one library, one task, one process, figures as JSON at the end.

    python -m tests.benchmarks.gpu_contenders '{"library": "bert4x", "task": "inference", "folder": ..., ...}'

A job has `library`, `task`, `folder` (a checkpoint as published on Hugging Face), `batch`, `length`, `new`, `dtype`,
`attention_dropout`, `seconds` (how long to measure for), `limit` (seconds until the process is killed) and `needs_gpu`.
The answer has `first` (seconds of the first call, which compiles), `times` (seconds a call), `peak` (bytes of device
memory, where the device tells), `outputs` (numbers that the contenders should agree on) and `device`.
"""

import json
import signal
import sys
import time
from collections.abc import Callable

import numpy as np

BLOCKS = 5  # medians and spread are those of so many blocks of calls


def blocks(call: Callable, wait: Callable, seconds: float) -> dict:
    """Times of a call: the first, then the mean within each block, at whose end alone the device is waited for."""
    begin = time.perf_counter()
    wait(call())
    first = time.perf_counter() - begin
    wait(call())
    begin = time.perf_counter()
    wait(call())
    once = time.perf_counter() - begin
    count, times = int(min(max(seconds / BLOCKS / once, 1), 100)), []
    for _ in range(BLOCKS):
        begin = time.perf_counter()
        for _ in range(count):
            result = call()
        wait(result)
        times.append((time.perf_counter() - begin) / count)
    return {"first": first, "times": times}


def ids_of(job: dict, vocabulary: int) -> np.ndarray:
    """The same for every library, without padding. Shape: (B, T)"""
    random = np.random.default_rng(job["batch"])
    return random.integers(vocabulary // 2, vocabulary, (job["batch"], job["length"])).astype("int32")


def generation(job: dict, generate: Callable[[int], np.ndarray]) -> dict:
    """Times of `new` tokens, and of fewer, for which bert4x compiles nothing new: the difference is that of tokens."""
    begin = time.perf_counter()
    ids = generate(job["new"])
    told = {"first": time.perf_counter() - begin, "outputs": np.asarray(ids).reshape(-1).tolist()}
    told["tokens"] = [job["short"], job["new"]]
    generate(job["short"])
    for name, new in (("times", job["new"]), ("short", job["short"])):
        told[name] = []
        begin = time.perf_counter()
        while len(told[name]) < 3 or time.perf_counter() - begin < job["seconds"] / 2:
            start = time.perf_counter()
            generate(new)
            told[name].append(time.perf_counter() - start)
    return told


# bert4x on JAX.


def device_of_jax(job: dict) -> dict:
    """Its name, and the peak of its memory so far. Raises: SystemExit without a GPU where one is needed."""
    import jax

    if job["needs_gpu"] and jax.default_backend() != "gpu":
        raise SystemExit(f"JAX sees no GPU, but {jax.devices()[0]}; --size toy runs on anything")
    stats = jax.devices()[0].memory_stats() or {}
    return {"device": jax.devices()[0].device_kind, "peak": stats.get("peak_bytes_in_use")}


def limits(job: dict) -> dict:
    """What the device can do, by JAX: products of square matrices, 2 n^3 operations a second, and bytes read a second.

    XLA multiplies float32 by TensorFloat-32 units unless told to be exact; both are measured.
    """
    import jax
    import jax.numpy as jnp

    n, told = job["length"], {}
    for name, dtype, precision in (
        ("bfloat16", "bfloat16", None),
        ("float16", "float16", None),
        ("float32", "float32", None),
        ("float32, exact", "float32", "highest"),
    ):
        a, b = (jax.random.normal(jax.random.key(i), (n, n), dtype) for i in range(2))
        multiply = jax.jit(lambda a, b, precision=precision: jnp.matmul(a, b, precision=precision))
        times = blocks(lambda a=a, b=b, f=multiply: f(a, b), jax.block_until_ready, job["seconds"])["times"]
        told[name] = 2 * n**3 / float(np.median(times))
    x = jnp.ones((16 * n, n), "float32")  # far larger than any cache
    total = jax.jit(jnp.sum)
    times = blocks(lambda: total(x), jax.block_until_ready, job["seconds"])["times"]
    return {"limits": told | {"bandwidth": x.nbytes / float(np.median(times))}, "times": times, "first": 0.0}


def ours_inference(job: dict) -> dict:
    import jax

    import bert4x
    from bert4x.training.compiled import Compiled

    model = bert4x.load(job["folder"], "encoder", dtype=job["dtype"], flash_attention=job["flash_attention"])
    run = Compiled(lambda inputs: model(inputs, training=False), model.variables, assigns=False)
    ids = jax.numpy.asarray(ids_of(job, model.config.vocab_size))
    inputs = [ids, jax.numpy.zeros_like(ids)]
    outputs = np.asarray(run(inputs)[0, 0], "float32").tolist()
    return blocks(lambda: run(inputs), jax.block_until_ready, job["seconds"]) | {"outputs": outputs}


def trainer_of(job: dict, model, loss: Callable):
    """Our trainer with AdamW, and with loss scaling where float16 needs it, as recipes make it."""
    import keras

    from bert4x.training.trainer import Trainer

    optimizer = keras.optimizers.AdamW(1e-5)
    if job["dtype"] == "mixed_float16":
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    return Trainer(model, loss, optimizer)


def ours_training(job: dict) -> dict:
    import jax
    import keras

    import bert4x

    options = {"attention_dropout_rate": job["attention_dropout"], "flash_attention": job["flash_attention"]}
    encoder = bert4x.load(job["folder"], "encoder", dtype=job["dtype"], **options)
    logits = keras.layers.Dense(2, dtype="float32")(encoder.outputs[0][:, 0])
    model = keras.Model(encoder.inputs, logits)
    trainer = trainer_of(job, model, lambda outputs, labels: keras.ops.mean(cross_entropy(labels, outputs)))
    ids = jax.numpy.asarray(ids_of(job, encoder.config.vocab_size))
    batch = (ids, jax.numpy.zeros_like(ids)), ids[:, 0] % 2
    return blocks(lambda: trainer.learn([batch], 1e-5), jax.block_until_ready, job["seconds"])


def cross_entropy(labels, logits):
    """Shape: (...,), (..., C) -> (...,)"""
    import keras

    return keras.losses.sparse_categorical_crossentropy(labels, logits, from_logits=True)


def ours_lora(job: dict) -> dict:
    import jax
    from keras import ops

    import bert4x
    from bert4x.training.lora import add_lora

    options = {"dropout_rate": 0.0, "attention_dropout_rate": 0.0, "flash_attention": job["flash_attention"]}
    model = bert4x.load(job["folder"], "lm", dtype=job["dtype"], **options)
    add_lora(model, rank=8, alpha=16)

    def loss(outputs, ids):
        return ops.mean(cross_entropy(ids[:, 1:], ops.cast(outputs[:, :-1], "float32")))

    trainer = trainer_of(job, model, loss)
    ids = jax.numpy.asarray(ids_of(job, model.config.vocab_size))
    outputs = [float(trainer.learn([((ids,), ids)], 0.0))]
    told = blocks(lambda: trainer.learn([((ids,), ids)], 1e-4), jax.block_until_ready, job["seconds"])
    return told | {"outputs": outputs}


def ours_generation(job: dict) -> dict:
    import bert4x

    model = bert4x.load(job["folder"], "lm", dtype=job["dtype"])
    ids = ids_of(job, model.config.vocab_size)
    return generation(job, lambda new: model.generate_ids(ids, max_new_tokens=new, min_new_tokens=new))


# transformers on PyTorch.


def device_of_torch(job: dict) -> dict:
    """As `device_of_jax`."""
    import torch

    if not torch.cuda.is_available():
        if job["needs_gpu"]:
            raise SystemExit("PyTorch sees no CUDA device")
        return {"device": "cpu", "peak": None}
    return {"device": torch.cuda.get_device_name(), "peak": torch.cuda.max_memory_allocated()}


def theirs_loaded(job: dict, cls: str, **options):
    """A model of transformers on the device; products of float32 by TensorFloat-32, which XLA uses, too."""
    import torch
    import transformers

    torch.set_float32_matmul_precision("high")
    dtype = torch.bfloat16 if job["dtype"] == "bfloat16" else torch.float32  # mixed precision keeps float32 weights
    options |= {"dtype": dtype, "attn_implementation": "sdpa"}
    model = getattr(transformers, cls).from_pretrained(job["folder"], **options)
    return model.to("cuda" if torch.cuda.is_available() else "cpu")


def tensor_ids(job: dict, model):
    """The ids on the model's device."""
    import torch

    return torch.tensor(ids_of(job, model.config.vocab_size), dtype=torch.long, device=model.device)


def synchronize(_=None) -> None:
    """Waits for the device."""
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def theirs_inference(job: dict) -> dict:
    import torch

    model = theirs_loaded(job, "BertModel", add_pooling_layer=False).eval()
    ids, run = tensor_ids(job, model), torch.compile(model) if job["compile"] else model
    with torch.inference_mode():
        outputs = run(ids).last_hidden_state[0, 0].float().cpu().tolist()
        return blocks(lambda: run(ids).last_hidden_state, synchronize, job["seconds"]) | {"outputs": outputs}


def theirs_training(job: dict) -> dict:
    import torch

    dropout = {"attention_probs_dropout_prob": job["attention_dropout"], "hidden_dropout_prob": 0.1}
    model = theirs_loaded(job, "BertModel", add_pooling_layer=False, **dropout).train()
    head = torch.nn.Linear(model.config.hidden_size, 2).to(model.device)
    half = {"mixed_bfloat16": torch.bfloat16, "mixed_float16": torch.float16}.get(job["dtype"])
    scaler = torch.amp.GradScaler(model.device.type, enabled=half is torch.float16)
    on_gpu = model.device.type == "cuda"
    optimizer = torch.optim.AdamW([*model.parameters(), *head.parameters()], lr=1e-5, fused=on_gpu)
    ids, run = tensor_ids(job, model), torch.compile(model) if job["compile"] else model
    labels = ids[:, 0] % 2

    def step():
        with torch.autocast(model.device.type, half, enabled=half is not None):
            loss = torch.nn.functional.cross_entropy(head(run(ids).last_hidden_state[:, 0]).float(), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        return loss

    return blocks(step, synchronize, job["seconds"])


def theirs_lora(job: dict) -> dict:
    import peft
    import torch

    none = {"attn_pdrop": 0.0, "embd_pdrop": 0.0, "resid_pdrop": 0.0}
    model = theirs_loaded(job, "GPT2LMHeadModel", **none)
    config = peft.LoraConfig(r=8, lora_alpha=16, target_modules=["c_attn"], fan_in_fan_out=True, task_type="CAUSAL_LM")
    model = peft.get_peft_model(model, config, autocast_adapter_dtype=False).train()
    learned = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(learned, lr=1e-4, fused=model.device.type == "cuda")
    ids, run = tensor_ids(job, model), torch.compile(model) if job["compile"] else model

    def step():
        loss = run(input_ids=ids, labels=ids).loss
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        return loss

    with torch.no_grad():
        outputs = [float(run(input_ids=ids, labels=ids).loss)]
    return blocks(step, synchronize, job["seconds"]) | {"outputs": outputs}


def theirs_generation(job: dict) -> dict:
    import torch

    model = theirs_loaded(job, "GPT2LMHeadModel").eval()
    ids = tensor_ids(job, model)
    options = {"do_sample": False, "pad_token_id": 0, "attention_mask": torch.ones_like(ids)}
    if job["compile"]:  # generate compiles the forward pass where the cache is of one size
        options["cache_implementation"] = "static"

    def generate(new: int) -> np.ndarray:
        found = model.generate(ids, max_new_tokens=new, min_new_tokens=new, **options)
        return found[:, ids.shape[1] :].cpu().numpy()

    return generation(job, generate)


def run(job: dict) -> dict:
    """Does a job in this process."""
    ours = job["library"] == "bert4x"
    device, side = (device_of_jax, "ours") if ours else (device_of_torch, "theirs")
    device(job)  # before anything that takes long
    return (limits if job["task"] == "limits" else globals()[f"{side}_{job['task']}"])(job) | device(job)


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    signal.alarm(int(given["limit"]))
    print("\n" + json.dumps(run(given)))
