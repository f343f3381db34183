"""Pretrain a small BERT whose one set of weights serves as encoder, masked language model, language model and UniLM.

Each row of a batch draws an objective: masked tokens (Devlin et al. 2018), left to right (Radford et al. 2018), or
source to target (UniLM, Dong et al. 2019). What differs is the attention mask and where predictions are made.

    python recipes/pretraining.py --data prose.txt:2 lines.txt.xz:3:lines poems.tsv --output runs/small --minutes 90
    python recipes/pretraining.py --data prose.txt:2 lines.txt.xz:3:lines poems.tsv --output runs/small --resume auto
    python recipes/pretraining.py --data papers.txt --model hfl/chinese-roberta-wwm-ext --learning-rate 1e-4
    python recipes/pretraining.py --data prose.txt lines.txt.xz:1:lines poems.tsv --evaluate runs/small/float16

A file is plain text or .xz of any size, a paragraph a line, documents separated by an empty line; `:2` has an epoch see
it twice, `:lines` says that every line is a document. A .tsv file holds `title <tab> author <tab> text`. All of it is
tokenized once, into a cache on the disk. The last 1% of every file is not trained on: it is what `--evaluate` reads.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import bert4x
from bert4x import plots, recipe
from bert4x.errors import RunError
from bert4x.training.corpus import CorpusFile, cache_rows
from bert4x.training.evaluation import held_out_rows, masked_accuracy, perplexity
from bert4x.training.mixture import Mixture
from bert4x.training.objectives import Mix, Specials
from bert4x.training.pretraining import Pretrainer
from bert4x.training.vocabulary import corpus_vocabulary
from bert4x.training.words import Words

TOY = Path(__file__).parent / "data/toy_text.txt"


@dataclass
class Arguments:
    smoke_values: ClassVar[dict[str, Any]] = {
        "layers": 1, "hidden": 32, "heads": 2, "batch_tokens": 512, "max_steps": 20, "learning_rate": 5e-3,
        "precision": "float32",
    }  # fmt: skip

    data: tuple[str, ...] = recipe.option((), "PATH[:WEIGHT][:lines] of each file; default: toy text")
    output: Path = recipe.option(Path("runs/pretraining"), "folder of checkpoints and the final model")
    resume: Literal["never", "auto"] = recipe.option("never", "auto: go on with the run in the output folder")
    cache: Path | None = recipe.option(None, "folder of tokenized text; default: cache/ in the output folder")
    model: str | None = recipe.option(
        None, "a BERT or ALBERT to go on from, with its vocabulary and sizes; default: a new one"
    )
    vocab: Path | None = recipe.option(
        None, "vocab.txt to use; default: the embedded model's", only={"model": False, "trim_vocab": False}
    )
    trim_vocab: Path | None = recipe.option(
        None, "or a large vocab.txt to trim to --vocab-size by frequency", only={"model": False}
    )
    vocab_size: int = recipe.option(8000, "tokens of a trimmed vocabulary", only={"trim_vocab": True}, least=100)
    layers: int = recipe.option(4, "of the model", only={"model": False}, least=1)
    hidden: int = recipe.option(256, "its size", only={"model": False}, least=8)
    heads: int = recipe.option(4, "of its attention", only={"model": False}, least=1)
    batch_tokens: int = recipe.option(4096, "tokens of a batch, padding included", least=512)
    learning_rate: float = recipe.option(1.5e-3, "its peak", above=0)
    optimizer: Literal["adamw", "muon"] = recipe.option("adamw", "muon: of the matrices, with AdamW for the rest")
    objectives: tuple[float, ...] = recipe.option((0.6, 0.2, 0.2), "shares of MLM, LM and UniLM among the rows")
    whole_words: bool = recipe.option(False, "mask whole words; Chinese ones need jieba")
    minutes: float = recipe.option(90, "length of the run", only={"max_steps": False}, above=0)
    max_steps: int | None = recipe.option(None, "its length in updates instead: reproducible to the bit", least=1)
    precision: recipe.PRECISIONS = recipe.option("mixed_bfloat16", "of computation; weights stay float32")
    backend: Literal["tensorflow", "jax", "torch"] | None = recipe.option(None, "of Keras")
    seed: int = recipe.option(0, "of weights, order and masks", least=0)
    evaluate: str | None = recipe.option(None, "only report this model on the held-out 1% of the data")
    smoke: bool = recipe.option(False, "toy text and a few steps: does it run?")


def sources(args) -> list[CorpusFile]:
    """The files to read."""
    return [CorpusFile.parse(text) for text in args.data or [str(TOY)]]


def make_model(args):
    """Vocabulary and config: of the model to go on from; or a vocabulary trimmed from a large one, or the embedded
    model's, and sizes as the arguments say."""
    if args.model:
        model = bert4x.load(args.model, with_mlm=True)
        return model.tokenizer, model.config
    if args.trim_vocab:
        tokens = corpus_vocabulary(sources(args), args.trim_vocab, args.vocab_size)
        tokenizer = bert4x.Tokenizer({token: i for i, token in enumerate(tokens)}, do_lower_case=True)
    else:
        vocab = args.vocab or bert4x.default_model() / "vocab.txt"
        tokenizer = bert4x.Tokenizer(vocab, do_lower_case=True)
    sizes, scale = (tokenizer.vocab_size, args.hidden, args.layers, args.heads), 0.64 / args.hidden**0.5
    return tokenizer, bert4x.TransformerConfig("bert", *sizes, pad_token_id=tokenizer.pad_id, initializer_range=scale)


def read_data(args, tokenizer):
    """The files' rows, tokenized, mixed by their weights."""

    def encode(texts):
        return [ids[1:-1] for ids in tokenizer.encode_batch(texts)[0]]

    tokens = tokenizer.ids_to_tokens(range(tokenizer.vocab_size))
    files = [cache_rows(source, args.cache or args.output / "cache", encode, tokens) for source in sources(args)]
    for file in files:
        print(f"{file.name}: {len(file):,} rows, {len(file.ids):,} tokens, weight {file.weight:g}")
    return Mixture(files, args.batch_tokens, args.seed), Words(tokens) if args.whole_words else None


def train(args):
    """Runs to the end of the schedule, or goes on to it; writes the model in float32 and float16, and the curve."""
    tokenizer, config = make_model(args)
    mixture, words = read_data(args, tokenizer)
    trainer = Pretrainer(
        config, mixture, Specials.of(tokenizer), Mix(tuple(args.objectives), words=words),
        peak=args.learning_rate, kind=args.optimizer, seed=args.seed, dtype=args.precision, start=args.model,
    )  # fmt: skip
    trainer.model.tokenizer = tokenizer
    if (args.output / "training.safetensors").exists() and not args.smoke:
        if args.resume == "never":
            raise RunError(f"{args.output} holds a run; go on with --resume auto, or choose another --output")
        trainer.resume(args.output)
    records = trainer.run(args.output, args.minutes, args.max_steps)
    bert4x.save(trainer.model, args.output / "float32")
    bert4x.convert(args.output / "float32", args.output / "float16", format="bert4x", dtype="float16")
    try:
        plots.curves(records, args.output / "curves.png")
    except plots.MissingMatplotlibError as error:
        print(f"no curves: {error}")


def evaluate(args):
    """Masked accuracy and left-to-right perplexity on the held-out end of every file."""
    mlm = bert4x.load(args.evaluate, with_mlm=True)
    lm = bert4x.load(args.evaluate, application="lm")
    print("| genre | rows | masked accuracy | perplexity |\n|---|---|---|---|")
    for source in sources(args):
        rows = held_out_rows(source, mlm.tokenizer)
        if rows:
            accuracy, confusion = masked_accuracy(mlm, mlm.tokenizer, rows), perplexity(lm, mlm.tokenizer, rows)
            print(f"| {source.name} | {len(rows)} | {accuracy:.1%} | {confusion:.1f} |", flush=True)


def main(args):
    if args.smoke:
        args.data = ()
    if args.evaluate:
        return evaluate(args)
    if len(args.objectives) != 3 or min(args.objectives) < 0 or abs(sum(args.objectives) - 1) > 1e-6:
        raise RunError(f"--objectives {args.objectives}; expected three shares whose sum is 1: MLM, LM, UniLM")
    with recipe.alone(args.output):
        return train(args)


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
