"""Hugging Face checkpoints of BERT, ALBERT and GPT2, safetensors or .bin, to the TensorFlow 1 layout of their authors.

    python converters/huggingface.py bert-base-chinese/ bert-tf1/

The layout: config.json, the vocabulary, and model.safetensors or pytorch_model.bin, either of them perhaps in shards
with an index. No PyTorch is needed: a .bin is a pickle, and the reader interprets just what a table of tensors needs,
so a file that tries to run something is refused.

What to know:
- linear layers are (out, in) and are transposed; GPT2's Conv1D layers are (in, out) already and hold q|k|v in one;
- old files say LayerNorm.gamma/beta for weight/bias, or have no prefix. Names under `roberta.` are another model;
- the output layer is the embedding table. Copies of it (`cls.predictions.decoder.weight`, `lm_head.weight`) are left
  out if they are equal, and refused if they are not: that model has separate tables, which BERT and GPT2 have not;
- `attn.bias` in GPT2 files is a causal mask, no weight; `embeddings.position_ids` a range;
- `pad_token_id` in a BERT's config is often wrong (hfl's RoBERTa-wwm says 1): the vocabulary's [PAD] counts.
"""

import argparse
import sys

from bert4x import Bert4xError, convert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("target", metavar="DST")
    parser.add_argument("--to", default="tf1", choices=["tf1", "keras", "bert4x"])
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="default: keep")
    options = parser.parse_args()
    try:
        print(f"wrote {convert(options.source, options.target, options.to, dtype=options.dtype)}")
    except Bert4xError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
