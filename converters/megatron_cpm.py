"""CPM-LM's original download (Megatron shards) to Hugging Face's GPT2 layout, or re-split into other shards.

    python converters/megatron_cpm.py CPM-1-Generate/ cpm-hf/
    python converters/megatron_cpm.py CPM-1-Generate/ cpm-4-shards/ --shards 4

The layout: latest_checkpointed_iteration.txt names a folder, "80000", of mp_rank_00_model_states.pt, mp_rank_01_...;
each is a pickle whose 'module' holds a slice of most tensors in float16. chinese_vocab.model lies beside them or in
bpe_3w_new/. No config is published: the sizes are those of the paper.

What to know:
- the architecture is plain GPT2: norms before the blocks, tanh gelu, epsilon 1e-5, output tied to the embeddings;
- every shard's query_key_value is its own q|k|v: it must be split into three inside each shard before the shards are
  joined. Joining first gives a model that talks nonsense;
- attention.dense and dense_4h_to_h are divided along their inputs, their biases are whole in every shard;
- id 0 is the unknown token and padding is 5, so "id 0 is padding" would hide real tokens;
- two vocabularies were published; they differ in whether the newline substitute is a token. bert4x looks, and copes.
"""

import argparse
import sys

from bert4x import Bert4xError, convert


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("target", metavar="DST")
    parser.add_argument("--shards", type=int, metavar="N", help="write N Megatron shards instead")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="default: keep")
    options = parser.parse_args()
    layout = "megatron" if options.shards else "hf"
    try:
        print(f"wrote {convert(options.source, options.target, layout, dtype=options.dtype, shards=options.shards)}")
    except Bert4xError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
