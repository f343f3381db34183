"""Train a model that writes from left to right and from right to left at once, and compare it with either direction.

Synchronous bidirectional decoding (Zhou, Zhang, Zong, TACL 2019, arXiv 1905.04847): two directions in one batch, each
attending to what the other has written so far; the likeliest text of all wins.

    python recipes/bidirectional_decoding.py  # without --train: toy sentences, in a minute
    python recipes/bidirectional_decoding.py --train cmn_eng.tsv.xz --vocab bert_zh/vocab.txt --output runs/pairs
    python recipes/bidirectional_decoding.py --task titles --train csl_title_train.tsv --test 100 --output runs/titles

A file is text or .xz, `source <tab> target` in every line (of more columns, the last two). The task `pairs` trains the
Transformer of Vaswani et al. 2017 from nothing; `titles` fine-tunes a BERT as a UniLM, by default the small one inside.
"""

import dataclasses
import json
import time
from pathlib import Path
from typing import Any, ClassVar, Literal

import bert4x
from bert4x import recipe
from bert4x.errors import RunError
from bert4x.metrics import bleu
from bert4x.plots import decoding_paths
from bert4x.tasks.readers import read_pairs
from bert4x.training import bidirectional as training
from bert4x.training.pairs import encode, hold_out, pair_config, pair_tokenizer

# What tasks differ in, unless the command line says it: how they learn, and how many tokens of a text are read.
TASKS = {
    "pairs": {"learning_rate": 2e-3, "epochs": 12, "batch_size": 128, "max_length": 26, "max_target": 23},
    "titles": {"learning_rate": 3e-4, "epochs": 4, "batch_size": 16, "max_length": 160, "max_target": 31},
}
TOY = {"train": Path(__file__).parent / "data/toy_pairs.tsv", "task": "pairs", "test": 40, "layers": 1, "hidden": 96}
TOY |= {"batch_size": 10, "dropout": 0.0, "epochs": 8}


@dataclasses.dataclass
class Arguments(recipe.Arguments):
    smoke_values: ClassVar[dict[str, Any]] = {"beams": 2, "max_target": 15}

    task: Literal["pairs", "titles"] = recipe.option("pairs", "translate by a new model, or fine-tune a pretrained one")
    output: Path = recipe.option(Path("runs/bidirectional"), "folder of the runs, pseudo targets and the picture")
    epochs: int | None = recipe.option(None, "times that every model sees each source", least=1)
    batch_size: int | None = recipe.option(None, "texts of a batch; both directions make two of a source", least=1)
    learning_rate: float | None = recipe.option(None, "its peak", above=0)
    max_length: int | None = recipe.option(None, "tokens of a source", least=8)
    max_target: int | None = recipe.option(None, "tokens of a target", least=2)
    header: bool | None = recipe.option(None, "whether the first line names the columns; default: by what it says")
    test: int = recipe.option(1000, "how many sources are held out", least=1)
    vocab: Path = recipe.option(
        bert4x.default_model() / "vocab.txt", "WordPiece vocabulary with the words of pairs", only={"task": ("pairs",)}
    )
    vocab_size: int = recipe.option(4000, "tokens of pairs", only={"task": ("pairs",)}, least=100)
    hidden: int = recipe.option(192, "size of the new model", only={"task": ("pairs",)}, least=8)
    layers: int = recipe.option(2, "of its encoder, and of its decoder", only={"task": ("pairs",)}, least=1)
    dropout: float = recipe.option(0.1, "of the new model", only={"task": ("pairs",)}, least=0, below=1)
    alone: float = recipe.option(0.0, "share of training before the directions see each other", least=0, below=1)
    two_pass: bool = recipe.option(False, "pseudo targets by the model itself, after that share")
    beams: int = recipe.option(4, "even: half of them for each direction", least=2)


def make_model(args, tokenizer, **options):
    """A model with random weights, or pretrained ones."""
    import keras  # after bert4x, with which TensorFlow says less

    keras.utils.set_random_seed(args.seed)
    if args.task == "titles":
        return bert4x.load(args.model, application="unilm", **options)
    config = pair_config(tokenizer, args.hidden, args.layers, args.dropout)
    model = bert4x.build_transformer_model(config, model="transformer", with_mlm="linear", **options)
    model.tokenizer = tokenizer
    return model


def train(args, name, triples, tokenizer, symbols, epochs, directions=training.DIRECTIONS, start=None, **options):
    """The weights of a model trained in a folder of its own."""
    model = make_model(args, tokenizer, dtype=args.precision, recompute=args.recompute, **options)
    if start is not None:
        model.set_weights(start)
    writer = training.Writer(model, symbols, directions)
    sources = max(1, args.batch_size // len(directions))
    with recipe.Run(dataclasses.replace(args, output=args.output / name, epochs=epochs, batch_size=sources)) as run:
        run.say(f"{name}: {len(triples):,} triples")
        run.train(writer, triples, None, lambda scores: model.save_weights(run.folder / "model.weights.h5"))
    model.load_weights(run.folder / "model.weights.h5")
    return model.get_weights()


def fill_in(args):
    """What the command line leaves open: by the task, and without data by the toy."""
    if args.lora:
        raise RunError("this recipe compares whole models; leave out --lora")
    if args.smoke or args.train is None:
        toy = TOY | ({"epochs": 2, "test": 8} if args.smoke else {})
        vars(args).update({name: toy[name] for name in toy if getattr(args, name) == getattr(Arguments, name)})
    vars(args).update({name: value for name, value in TASKS[args.task].items() if getattr(args, name) is None})


def main(args):
    fill_in(args)
    pairs, tests = hold_out(read_pairs(args.train, header=args.header, say=print), args.test)
    titles = args.task == "titles"
    tokenizer = bert4x.load_tokenizer(args.model) if titles else pair_tokenizer(pairs, args.vocab, args.vocab_size)
    sources = encode(tokenizer, [source for source, _ in pairs], args.max_length)
    targets = [ids[1:-1] for ids in encode(tokenizer, [target for _, target in pairs], args.max_target + 2)]

    # The first token of a target says in which direction it is written.
    symbols = training.Symbols(tokenizer.start_id, tokenizer.mask_id, tokenizer.end_id, tokenizer.pad_id)
    special = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.start_id, tokenizer.mask_id]
    search = {"max_new_tokens": args.max_target + 1, "suppress_ids": special}
    beams = {"num_beams": args.beams, "length_penalty": 0.6}
    decode = training.Decoder(make_model(args, tokenizer), symbols, **search)

    # 1. Two plain models, one for each direction: baselines, and what writes the pseudo targets.
    gold, settings = training.gold_triples(sources, targets), (tokenizer, symbols)
    plain = {way: train(args, way, gold, *settings, args.epochs, [way]) for way in training.DIRECTIONS}

    # 2. One model that writes in either direction, as its first token says; the two do not see each other yet.
    alone = round(args.alone * args.epochs)
    start = train(args, "either", gold, *settings, alone) if alone else None

    # 3. It goes on with both at once. Were both targets the true one, each direction could read its future in what the
    # other has written; so one of them is what a model makes of the source. Every source is there twice, once for
    # each: in half the epochs it is seen as often.
    file = args.output / "pseudo_targets.json"
    if not (args.resume == "auto" and file.exists()):
        writers = dict.fromkeys(plain, start) if args.two_pass and alone else plain
        file.write_text(json.dumps([decode(weights, sources, way) for way, weights in writers.items()]))
    triples = training.pseudo_triples(sources, targets, *json.loads(file.read_text()))
    both = train(args, "both", triples, *settings, (args.epochs - alone + 1) // 2, start=start, bidirectional=True)

    # 4. The comparison, with the same number of beams in all.
    texts, references = [source for source, _ in tests], [targets for _, targets in tests]
    test_sources = encode(tokenizer, texts, args.max_length)
    decode_both = training.Decoder(make_model(args, tokenizer, bidirectional=True), symbols, **search)
    print("| model | BLEU (characters) | seconds |\n|---|---|---|")
    for name, weights in (plain | {"both": both}).items():
        began = time.perf_counter()
        found = (decode_both if name == "both" else decode)(weights, test_sources, name, **beams)
        seconds = time.perf_counter() - began
        score = bleu([tokenizer.decode(ids) for ids in found], references, tokenize="char", lowercase=True).score
        print(f"| {name} | {score:.2f} | {seconds:.1f} |", flush=True)

    # 5. One of them, seen from both sides.
    text = max(texts[:8], key=len)
    decoder, picture = decode_both.both, args.output / "paths.png"
    (paths,) = decoder.paths([text], stop_ids=symbols.stop, **search, **beams)
    decoding_paths(paths, tokenizer, picture, title=text if len(text) < 80 else "")
    print(f"{text}\n-> {decoder.text(paths[0])}\npicture: {picture}")


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
