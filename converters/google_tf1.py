"""Google's TensorFlow 1 checkpoints of BERT and ALBERT, and all published like them, to Hugging Face's layout.

    python converters/google_tf1.py chinese_L-12_H-768_A-12/ bert-hf/

The layout: bert_config.json, vocab.txt and bert_model.ckpt.{index,data-00000-of-00001}; names such as
`bert/encoder/layer_3/attention/self/query/kernel`, kernels as (in, out). SRC is the folder or the prefix.

What to know:
- only `cls/seq_relationship/output_weights` is (out, in), so it alone is transposed;
- the masked-language-model head has no kernel of its own: it is the embedding table and `cls/predictions/output_bias`;
- training leaves optimizer slots (`.../adam_m`, `global_step`) and heads of other tasks: listed and left out;
- CLUE's checkpoints have no masked-language-model head, and the result has none either;
- ALBERT holds the weights of one layer, under `group_0/inner_group_0`. brightmart's early ALBERT (`layer_shared`,
  `word_embeddings_2`) is another architecture, that of the family `albert_zh`, which was published in this layout only.
- `"hidden_act": "gelu"` means the error function for BERT, the tanh form for ALBERT; what is written spells it out.
"""

import argparse
import sys

from bert4x import Bert4xError, convert, inspect


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("target", metavar="DST")
    parser.add_argument("--dtype", choices=["float32", "float16", "bfloat16"], help="default: keep")
    options = parser.parse_args()
    try:
        found = inspect(options.source)
        for name in found.stray + found.ignored:
            print(f"left out: {name}")
        print(
            f"wrote {convert(options.source, options.target, 'hf', dtype=options.dtype)}: {found.parameters:,} weights"
        )
    except Bert4xError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
