"""Keras weight files, of bert4x or of bert4keras, to Hugging Face's layout.

    python converters/keras_h5.py best.weights.h5 tuned-hf/ --config bert_config.json --model bert

The layout: HDF5 by layers. Keras 3 (`model.save_weights("x.weights.h5")`) numbers them by class in the order of the
graph and keeps our layer names as attributes; bert4keras under Keras 2 wrote groups by layer name. Both are read.

What to know:
- such a file says nothing of heads, activation or family: --config is the config file of the pretrained model, and
  --model its family. A folder that bert4x wrote (`bert4x convert --to keras`) has a config.json and needs neither;
- layers that are not part of the family, a classifier on top, are not converted;
- an unshared ALBERT (--model albert_unshared) fits Hugging Face's ALBERT only while its layers are still equal.
"""

import argparse
import sys

from bert4x import Bert4xError, convert
from bert4x.checkpoints.tables import config_from
from bert4x.config import read_config_file


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("source", metavar="SRC")
    parser.add_argument("target", metavar="DST")
    parser.add_argument("--config", help="the pretrained model's config file")
    parser.add_argument("--model", default="bert", choices=["bert", "albert", "albert_unshared", "gpt2"])
    parser.add_argument("--to", default="hf", choices=["hf", "tf1", "bert4x"])
    options = parser.parse_args()
    try:
        config = config_from(read_config_file(options.config), options.model, "tf1") if options.config else None
        print(f"wrote {convert(options.source, options.target, options.to, config=config)}")
    except Bert4xError as error:
        sys.exit(f"{type(error).__name__}: {error}")


if __name__ == "__main__":
    main()
