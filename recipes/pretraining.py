"""Pretrain a small BERT whose one set of weights serves as encoder, masked language model, language model and UniLM.

Each row of a batch draws an objective: masked tokens (Devlin et al. 2018), left to right (Radford et al. 2018), or
source to target (UniLM, Dong et al. 2019). What differs is the attention mask and where predictions are made.

    python recipes/pretraining.py --data prose.txt:2 sentences.txt.xz:3:lines poems.tsv --output runs/small --minutes 90
    python recipes/pretraining.py --data prose.txt:2 sentences.txt.xz:3:lines poems.tsv --output runs/small --resume
    python recipes/pretraining.py --data prose.txt sentences.txt.xz:1:lines poems.tsv --evaluate runs/small/float16

A file is plain text or .xz, a paragraph a line, documents separated by an empty line; `:2` has an epoch see it twice,
`:lines` says that every line is a document. A .tsv file holds `title <tab> author <tab> text`. The last 1% of every
file is left out of training and is what `--evaluate` reads.
"""

import argparse
import time
from pathlib import Path

import keras
import numpy as np

import bert4x
from bert4x.training.corpus import Source, cache_rows
from bert4x.training.evaluation import held_out_rows, masked_accuracy, perplexity
from bert4x.training.mixture import Mixture
from bert4x.training.objectives import Mix, Specials
from bert4x.training.pretraining import Pretrainer
from bert4x.training.vocabulary import corpus_vocabulary


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--data", nargs="+", type=Source.parse, required=True, metavar="PATH[:WEIGHT][:lines]")
    p.add_argument("--output", type=Path, default=Path("runs/pretraining"), help="checkpoints and the final model")
    p.add_argument("--cache", type=Path, help="tokenized text; default: cache/ in the output folder")
    p.add_argument("--vocab", type=Path, help="vocab.txt to use; default: the embedded model's")
    p.add_argument("--trim-vocab", type=Path, help="or a large vocab.txt to trim to --vocab-size by frequency")
    p.add_argument("--vocab-size", type=int, default=8000)
    p.add_argument("--layers", type=int, default=4)
    p.add_argument("--hidden", type=int, default=256)
    p.add_argument("--heads", type=int, default=4)
    p.add_argument("--batch-tokens", type=int, default=4096)
    p.add_argument("--learning-rate", type=float, default=1.5e-3, help="its peak")
    p.add_argument("--objectives", nargs=3, type=float, default=(0.6, 0.2, 0.2), metavar=("MLM", "LM", "UNILM"))
    p.add_argument("--minutes", type=float, default=90, help="wall-clock length of the run")
    p.add_argument("--steps", type=int, help="length of the run in steps instead: reproducible to the bit")
    p.add_argument("--float32", action="store_true", help="instead of mixed bfloat16")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--resume", action="store_true", help="continue the run in the output folder")
    p.add_argument("--evaluate", metavar="MODEL", help="only report a model on the held-out 1%% of the data")
    return p.parse_args()


def make_tokenizer(args):
    """The vocabulary that is given, trimmed from a large one, or the embedded model's."""
    if args.trim_vocab:
        tokens = corpus_vocabulary(args.data, args.trim_vocab, args.vocab_size)
        return bert4x.Tokenizer({token: i for i, token in enumerate(tokens)}, do_lower_case=True)
    return bert4x.Tokenizer(args.vocab or Path(bert4x.__file__).parent / "assets/default/vocab.txt", do_lower_case=True)


def make_trainer(args, tokenizer):
    """A model with random weights, and the data it will see."""

    def encode(texts):
        return [ids[1:-1] for ids in tokenizer.encode_batch(texts)[0]]

    tokens = tokenizer.ids_to_tokens(range(tokenizer.vocab_size))
    files = [cache_rows(source, args.cache or args.output / "cache", encode, tokens) for source in args.data]
    for file in files:
        print(f"{file.name}: {len(file):,} rows, {len(file.ids):,} tokens, weight {file.weight:g}")
    config = bert4x.TransformerConfig(
        "bert", tokenizer.vocab_size, args.hidden, args.layers, args.heads, pad_token_id=tokenizer.pad_id,
        initializer_range=0.64 / args.hidden**0.5,
    )  # fmt: skip
    trainer = Pretrainer(
        config,
        Mixture(files, args.batch_tokens, args.seed),
        Specials.of(tokenizer),
        Mix(tuple(args.objectives)),
        peak=args.learning_rate,
        seed=args.seed,
        dtype="float32" if args.float32 else "mixed_bfloat16",
        # XLA is the faster one in float32 on a CPU, oneDNN in bfloat16.
        jit="auto" if args.float32 or keras.backend.backend() != "tensorflow" else False,
    )
    trainer.model.tokenizer = tokenizer
    if args.resume:
        trainer.resume(args.output)
    return trainer


def train(trainer, args):
    """Runs to the end of the schedule; saves every three minutes."""
    started = saved = time.time()
    before, losses = trainer.seconds, []
    while (progress := trainer.step / args.steps if args.steps else trainer.seconds / (60 * args.minutes)) < 1:
        losses.append(trainer.train_step(progress))
        trainer.seconds = before + time.time() - started
        if trainer.step % 50 == 0:
            speed = len(losses) * args.batch_tokens / (time.time() - started)
            print(
                f"step {trainer.step}, {progress:.1%}: loss {np.mean(losses[-50:]):.4f}, {speed:.0f} tokens/s",
                flush=True,
            )
        if time.time() - saved > 180:
            trainer.save(args.output)
            saved = time.time()
    trainer.save(args.output)
    bert4x.save(trainer.model, args.output / "float32")
    bert4x.convert(args.output / "float32", args.output / "float16", format="bert4x", dtype="float16")


def evaluate(args):
    """Masked accuracy and left-to-right perplexity on the held-out end of every file."""
    mlm = bert4x.load(args.evaluate, with_mlm=True)
    lm = bert4x.load(args.evaluate, application="lm")
    print("| genre | rows | masked accuracy | perplexity |\n|---|---|---|---|")
    for source in args.data:
        rows = held_out_rows(source, mlm.tokenizer)
        if rows:
            accuracy, confusion = masked_accuracy(mlm, mlm.tokenizer, rows), perplexity(lm, mlm.tokenizer, rows)
            print(f"| {source.name} | {len(rows)} | {accuracy:.1%} | {confusion:.1f} |", flush=True)


if __name__ == "__main__":
    args = arguments()
    if args.evaluate:
        evaluate(args)
    else:
        train(make_trainer(args, make_tokenizer(args)), args)
