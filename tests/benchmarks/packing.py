"""An epoch of fine-tuning a classifier with padded and with packed batches, in turn, in one process.

    python -m tests.benchmarks.packing --data train.tsv.xz [--rows 2000] [--batch-size 32] [--model FOLDER]

--data is .tsv or .tsv.xz, `text <tab> label` in every line. Padded batches are ours, which hold texts of similar
length; "at random" are batches of texts as they come, padded to the longest. One epoch of each
comes first, which compiles.
"""

import argparse
import statistics
import time
from pathlib import Path

import numpy as np
from keras import ops

import bert4x
from bert4x.tasks.readers import read_labelled
from bert4x.tasks.text_classification import TextClassification
from bert4x.training.batches import Batches, padded_length
from bert4x.training.trainer import Trainer


class AtRandom(Batches):
    """Texts in batches as they come."""

    def plan(self, draw):
        order = np.resize(draw.permutation(len(self.lengths)), len(self) * self.size)
        batches = np.split(order, len(self))
        return [(rows, padded_length(int(self.lengths[rows].max()), self.longest)) for rows in batches]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--model")
    for name, default in {"rows": 2000, "batch-size": 32, "repeats": 3, "max-length": 128}.items():
        parser.add_argument(f"--{name}", type=int, default=default)
    args = parser.parse_args()
    rows = read_labelled(args.data)[: args.rows]
    task = TextClassification(bert4x.load(args.model), sorted({row[-1] for row in rows}), maxlen=args.max_length)
    examples = task.prepare(rows)
    packed = task.packed(examples, args.batch_size)
    lengths = np.array([example.length for example in examples])
    ways = {
        "at random": (task.model, task.batch, AtRandom(lengths, args.batch_size, longest=task.maxlen)),
        "padded": (task.model, task.batch, Batches(lengths, args.batch_size, longest=task.maxlen)),
        "packed": (packed.model, packed.batch, packed.batches),
    }
    trainers = {name: Trainer(model, task.loss, task.optimizer(1e-4)) for name, (model, _, _) in ways.items()}
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    tokens = {}
    for repeat in range(args.repeats + 1):
        for name, (_, batch, batches) in ways.items():
            began, tokens[name] = time.perf_counter(), 0
            for number, (chosen, length) in enumerate(batches.epoch(0)):
                inputs, targets = batch([examples[i] for i in chosen], length, batches.draw(0, number))
                tokens[name] += inputs[0].size
                loss = trainers[name].learn([(inputs, targets)], 1e-4)
            ops.convert_to_numpy(loss)
            if repeat:
                seconds[name].append(time.perf_counter() - began)
    print(f"{len(examples)} texts of {lengths.mean():.1f} tokens on average, {lengths.max()} at most")
    print("| batches | updates | no padding | an epoch, s |\n|---|---|---|---|")
    for name, (_, _, batches) in ways.items():
        share = lengths.sum() / tokens[name]
        print(f"| {name} | {len(batches)} | {min(share, 1):.3f} | {statistics.median(seconds[name]):.2f} |")


if __name__ == "__main__":
    main()
