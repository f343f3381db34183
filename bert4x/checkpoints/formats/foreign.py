"""Files that are recognised and not read: what each is, and what to do about it."""

import re

HEAD = 512  # bytes of a file that tell what it is
EXPORTED = "a model exported for a runtime, from which no checkpoint comes back: take the checkpoint it was made of"
OTHER_FORMAT = (
    "Take model.safetensors or pytorch_model.bin of the same model, which most repositories have, or write one with "
    "transformers 4: AutoModelForPreTraining.from_pretrained(folder, {}=True).save_pretrained(folder)"
)
ADAPTER = (
    "an adapter of PEFT (LoRA, say), which is not a model: open its folder, in which adapter_config.json must name the "
    "base model; or save both merged, "
    "PeftModel.from_pretrained(base, folder).merge_and_unload().save_pretrained(target)"
)
MINDSPORE = "MindSpore's: take the model in PyTorch's or TensorFlow's form"
ARCHIVE = "an archive: unpack it, and pass the folder"

# Beginnings of text files, which no file of weights can have.
TEXTS = (
    (
        rb"version https://(?:git-lfs\.github|hawser\.github)\.com/spec/|# xet version",
        "a pointer of Git LFS, which stands for the file until that is fetched: run `git lfs install` and "
        "`git lfs pull` in the clone, or download the file itself",
    ),
    (
        rb"(?i)(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|\?xml)",
        "a web page, saved in place of the file: download it again, by the link that gives the file itself",
    ),
)
# Beginnings of files of no format that is read; weights might begin so by chance.
CONTENTS = (
    (rb"ggml|ggjt", "an old file of llama.cpp, before GGUF: take the checkpoint it was made of"),
    (rb"....TFL3", f"TensorFlow Lite's, {EXPORTED}"),
    (rb"\n.{1,5}\n.{1,2}[\w.]+\x12", MINDSPORE),  # a protocol buffer: a list of named tensors
    (rb"\x1f\x8b|BZh\d|\xfd7zXZ|7z\xbc\xaf|Rar!", ARCHIVE),
)
# Names of files in a folder without weights that are read, those first that say most.
NAMES = (
    (r"adapter_model\.\w+", ADAPTER),
    (r"adapter_config\.json", ADAPTER),
    (
        r"(bf16_)?zero_pp_rank_\d+_mp_rank_\d+_model_states\.pt",
        "a part of a DeepSpeed ZeRO 3 checkpoint, whose weights are divided over the processes: join them with "
        "`python zero_to_fp32.py . pytorch_model.bin`, a script that DeepSpeed leaves beside them",
    ),
    (
        r".*\.distcp",
        "a part of a torch.distributed checkpoint (FSDP): join its parts with `python -m "
        "torch.distributed.checkpoint.format_utils dcp_to_torch FOLDER pytorch_model.bin`",
    ),
    (
        r"tf_model-\d+-of-\d+\.h5|tf_model\.h5\.index\.json",
        "the weights of transformers' TensorFlow classes in several files, of which one alone is read. "
        + OTHER_FORMAT.format("from_tf"),
    ),
    (
        r"flax_model-\d+-of-\d+\.msgpack|flax_model\.msgpack\.index\.json",
        "the weights of transformers' Flax classes in several files, of which one alone is read. "
        + OTHER_FORMAT.format("from_flax"),
    ),
    (
        r".*\.(pdiparams|pdmodel|pdopt|pdckpt)",
        "PaddlePaddle's, and not its parameters by name: those are in a file .pdparams (model_state.pdparams)",
    ),
    (r".*\.mindir", MINDSPORE),
    (r".*\.ggml", "an old file of llama.cpp, before GGUF: take the checkpoint it was made of"),
    (
        r".*\.(onnx|onnx_data|tflite|mlmodel|mlpackage|engine|plan)|openvino_model\.(xml|bin)|rust_model\.ot",
        EXPORTED,
    ),
    (
        r"model_optim_rng\.pt|mp_rank_\d+(_\d+)?",
        "a part of Megatron-LM's own checkpoint: pass the folder of the iteration, in which "
        "mp_rank_00/model_optim_rng.pt lies. One divided over the stages of a pipeline (mp_rank_00_000) is not read: "
        "join them with the tools of Megatron-LM",
    ),
    (r".*\.meta", "TensorFlow's graph without its weights: the files .index and .data-00000-of-00001 belong to it"),
    (r"(frozen_|saved_)?\w*\.pb", "TensorFlow's graph without variables: take the checkpoint it was made of"),
    (r".*\.(zip|tar|tgz|tar\.\w+|rar|7z|gz)", ARCHIVE),
    (r".*\.(part|crdownload|download|aria2|incomplete|tmp)", "an unfinished download: fetch the file again"),
)


def text_of(head: bytes) -> str | None:
    """What a file is that should hold weights and begins as text; None for one that does not."""
    return next((what for pattern, what in TEXTS if re.match(pattern, head)), None)


def content_of(head: bytes) -> str | None:
    """What a file of unknown format is by its first bytes; None for one that is not known here."""
    return next((what for pattern, what in CONTENTS if re.match(pattern, head, re.DOTALL)), None)


def kind_of(name: str) -> str | None:
    """What a file is by its name; None for one that is not known here."""
    return next((what for pattern, what in NAMES if re.fullmatch(pattern, name)), None)


def explained(names: list[str]) -> str:
    """A sentence about the first file among names, in a folder or a repository, that is recognised; "" if none is."""
    for pattern, what in NAMES:
        for name in names:
            if re.fullmatch(pattern, name):
                return f"{name} is {what}"
    return ""
