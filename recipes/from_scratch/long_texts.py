"""A model that is trained on short texts, on longer ones: attention of log n (Su, kexue.fm/archives/8823) and scaled
rotary positions.

Over more tokens than in training, the softmax of attention spreads. Scores times log n / log m, for n tokens where m
were trained, keep its entropy what it was. Two masked language models with rotary positions are trained on windows of
16 to 64 tokens, with and without it, and asked for the same hidden tokens with ever more of the text around them.

    python recipes/from_scratch/long_texts.py --data law.txt.xz
    python recipes/from_scratch/long_texts.py --data law.txt.xz --steps 20000 --hidden 256 --output runs/long
    python recipes/from_scratch/long_texts.py --data law.txt.xz --steps 200 --model embedded --learning-rate 7e-4

Documents are separated by an empty line; the last 1% of the file is not trained on. Below each model stand its scores
with what can be had at loading: log n only beyond 64, positions divided (linear), a growing base (dynamic), yarn. A
model that is in the output folder already is not trained again. In the folder: long_texts.png.
"""

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

import bert4x
from bert4x import recipe
from bert4x.errors import DataError
from bert4x.families import family_of
from bert4x.plots.figures import optional, picture
from bert4x.training.corpus import CorpusFile
from bert4x.training.evaluation import restored
from bert4x.training.objectives import Mix, Specials
from bert4x.training.pretraining import Pretrainer
from bert4x.training.windows import Windows, windows_of

TOY = Path(__file__).parents[1] / "data/toy_text.txt"


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {
        "length": 16, "shortest": 8, "longest": 64, "layers": 1, "hidden": 16, "heads": 2, "batch": 4, "steps": 2,
        "data": None, "model": None,
    }  # fmt: skip

    data: str | None = recipe.option(None, "text file, plain or .xz; default: toy text")
    output: Path = recipe.option(Path("runs/long_texts"), "folder of the models and the picture")
    length: int = recipe.option(64, "tokens of the longest window in training, [CLS] and [SEP] included", least=4)
    shortest: int = recipe.option(16, "tokens of a window in training, which vary up to --length", least=4)
    longest: int = recipe.option(512, "of a window that is scored: by doubling from --length", least=4)
    model: str | None = recipe.option(
        None, "folder of a BERT or RoFormer to begin with, but for its positions, or: embedded"
    )
    layers: int = recipe.option(4, "of each new model", least=1)
    hidden: int = recipe.option(128, "its size", least=8)
    heads: int = recipe.option(4, "of its attention", least=1)
    batch: int = recipe.option(32, "windows of an update", least=1)
    steps: int = recipe.option(3000, "updates of each model", least=1)
    learning_rate: float = recipe.option(3e-3, "its peak", above=0)
    texts: int = recipe.option(20000, "documents to learn from at most", least=1)
    windows: int = recipe.option(2, "of --longest tokens to score on of a document at most", least=1)
    scored: int = recipe.option(1000, "such windows at most", least=1)
    scalings: tuple[str, ...] = recipe.option(("linear", "dynamic", "yarn"), "of positions, to score with, too")


def trained(name, own, args, tokenizer, windows):
    """The folder of a model with options of its own, which is trained if it is not there."""
    folder = args.output / name.replace(" ", "_")
    if not (folder / "model" / "config.json").exists():
        start = bert4x.load(args.model, with_mlm=True) if args.model else None
        sizes = (tokenizer.vocab_size, args.hidden, args.layers, args.heads)
        config = start.config if start else bert4x.TransformerConfig(
            "bert", *sizes, pad_token_id=tokenizer.pad_id, initializer_range=0.64 / args.hidden**0.5
        )  # fmt: skip
        config = config.as_class(family_of("roformer").config_class)
        config = config.replace(model="roformer", max_position=args.length, **own)
        mix = Mix((1.0, 0.0, 0.0), predicted=Mix.masked, unpunctuated=0.0)
        trainer = Pretrainer(config, windows, Specials.of(tokenizer), mix, peak=args.learning_rate, seed=args.seed)
        trainer.model.tokenizer = tokenizer
        if start:  # all but the table of positions
            values = {variable.path: keras.ops.convert_to_numpy(variable) for variable in start.variables}
            for variable in trainer.model.variables:
                variable.assign(values[variable.path])
        if (folder / "run" / "training.safetensors").exists():  # it was interrupted
            trainer.resume(folder / "run")
        trainer.run(folder / "run", max_steps=args.steps)
        bert4x.save(trainer.model, folder / "model")
    return folder / "model"


def score(model, length, texts, hidden):
    """The share of hidden tokens that a model restores, of texts that are cut into windows of a length."""
    size = length - 2
    ids, asked = (
        np.concatenate([x[:, i : i + size] for i in range(0, x.shape[1] - size + 1, size)]) for x in (texts, hidden)
    )
    return restored(model, model.tokenizer, ids, asked)


def main(args):
    if not args.shortest <= args.length < args.longest:
        lengths = f"--shortest {args.shortest}, --length {args.length}, --longest {args.longest}"
        raise DataError(f"{lengths}; expected the second to be no less than the first, and the third to be more")
    # 1. Windows of the length in training; and longer texts that no model has seen, some of whose tokens are hidden.
    source = CorpusFile.parse(args.data or str(TOY))
    args.model = str(bert4x.default_model()) if args.model == "embedded" else args.model
    tokenizer = bert4x.Tokenizer(Path(args.model or bert4x.default_model()) / "vocab.txt", do_lower_case=True)
    documents = source.documents() if args.smoke else source.training_documents()
    size, longest = args.length - 2, args.longest - 2
    pieces = windows_of(itertools.islice(documents, args.texts), tokenizer, size)
    windows = Windows(pieces, args.shortest - 2, args.batch, args.seed)
    held_out = source.documents() if args.smoke else source.held_out_documents()
    texts = windows_of(held_out, tokenizer, longest, args.windows)[: args.scored]
    hidden = np.random.default_rng(args.seed).random(texts.shape) < 0.15
    hidden &= texts != tokenizer.unk_id
    hidden[:, longest // size * size :] = False  # so that at every length the same tokens are asked for
    print(f"{len(pieces):,} windows to learn from, {hidden.sum():,} hidden tokens of {len(texts)} texts")

    # 2. Two models, of which one has log n in training, too.
    log_n = {"log_n": args.length}
    at_loading = {"as usual": {"log n beyond": log_n | {"log_n_beyond": True}}, "with log n": {}}
    folders = {
        name: trained(name, own, args, tokenizer, windows) for name, own in (("as usual", {}), ("with log n", log_n))
    }

    # 3. The same hidden tokens, with more of the text around them.
    scalings = {f"{kind} positions": {"rope_scaling": kind} for kind in args.scalings}
    lengths = [args.length << i for i in range((args.longest // args.length).bit_length())]
    print("| trained | loaded with |", " | ".join(map(str, lengths)), "|\n|---|---|" + "---|" * len(lengths))
    table = {}
    for name, folder in folders.items():
        for how, options in ({"": {}} | at_loading[name] | scalings).items():
            table[name, how] = [
                score(bert4x.load(folder, with_mlm=True, max_position=n, **(options if n > args.length else {})), n,
                      texts, hidden) for n in lengths
            ]  # fmt: skip
            print(f"| {name} | {how} |", " | ".join(f"{100 * x:.1f}" for x in table[name, how]), "|", flush=True)

    # 4. As a picture.
    with optional(), picture(args.output / "long_texts.png") as axes:
        for (name, how), shares in table.items():
            axes[0].plot(lengths, shares, "-o" if not how else "--", label=f"{name}, {how}".strip(", "))
        axes[0].set(xscale="log", xticks=lengths, xticklabels=lengths, xlabel="tokens", ylabel="hidden tokens restored")
        axes[0].legend(fontsize=8)
    return table


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
