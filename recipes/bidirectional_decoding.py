"""Train a model that writes from left to right and from right to left at once, and compare it with either direction.

Synchronous bidirectional decoding (Zhou, Zhang, Zong, TACL 2019, arXiv 1905.04847): two directions in one batch, each
attending to what the other has written so far; the likeliest text of all wins.

    python recipes/bidirectional_decoding.py
    python recipes/bidirectional_decoding.py --data cmn_eng.tsv.xz --vocab bert_zh/vocab.txt --output runs/pairs
    python recipes/bidirectional_decoding.py --task titles --data csl_title_train.tsv --test 100 --output runs/titles

Without --data it translates toy sentences, in a minute. A file is text or .xz, `source <tab> target` in every line (of
more columns, the last two). The task `pairs` trains the Transformer of Vaswani et al. 2017 from nothing; `titles`
fine-tunes a pretrained BERT as a UniLM: the small one inside the package, unless --model names another.
"""

import argparse
import json
import time
from pathlib import Path

import keras

import bert4x
from bert4x.metrics import bleu
from bert4x.plots import decoding_paths
from bert4x.training import bidirectional as training
from bert4x.training.epochs import train_epochs
from bert4x.training.pairs import encode, pair_tokenizer, read_pairs

DEFAULT_MODEL = Path(bert4x.__file__).parent / "assets/default"
# What tasks differ in, unless the command line says it: how it learns, and how many tokens of a text are read.
TASKS = {
    "pairs": {"learning_rate": 2e-3, "epochs": 12, "batch": 128, "source": 26, "target": 23},
    "titles": {"learning_rate": 3e-4, "epochs": 4, "batch": 16, "source": 160, "target": 31},
}
TOY = {"test": 40, "layers": 1, "hidden": 96, "batch": 10, "dropout": 0.0, "epochs": 8}


def arguments():
    p = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    p.add_argument("--task", choices=TASKS, default="pairs")
    p.add_argument("--data", type=Path, help="source <tab> target; default: toy sentences")
    p.add_argument("--output", type=Path, default=Path("runs/bidirectional"), help="models, pseudo targets, a picture")
    p.add_argument("--resume", action="store_true", help="continue the run in the output folder")
    p.add_argument("--test", type=int, default=1000, help="how many sources are held out")
    p.add_argument("--model", default=DEFAULT_MODEL, help="pretrained BERT for titles; default: the small one")
    p.add_argument("--vocab", default=DEFAULT_MODEL / "vocab.txt", help="WordPiece vocabulary that has pairs' words")
    p.add_argument("--vocab-size", type=int, default=4000)
    p.add_argument("--hidden", type=int, default=192)
    p.add_argument("--layers", type=int, default=2, help="of the encoder, and of the decoder")
    p.add_argument("--dropout", type=float, default=0.1)
    p.add_argument("--epochs", type=int, help="times that every model sees each source")
    p.add_argument("--batch", type=int, help="sources of a batch; in both directions it has twice as many rows")
    p.add_argument("--learning-rate", type=float, help="its peak")
    p.add_argument("--mixed-bfloat16", action="store_true", help="train in it: faster where the processor has it")
    p.add_argument("--alone", type=float, default=0.0, help="share of training before the directions see each other")
    p.add_argument("--two-pass", action="store_true", help="pseudo targets by the model itself, after that share")
    p.add_argument("--beams", type=int, default=4, help="even: half of them for each direction")
    p.add_argument("--seed", type=int, default=0)
    p.add_argument("--smoke", action="store_true", help="toy sentences and a few steps: does it run?")
    args = p.parse_args()
    if not 0 <= args.alone < 1 or (args.two_pass and not args.alone):
        p.error("--alone is a share from 0 to below 1; --two-pass needs more than 0")
    if args.smoke or args.data is None:
        args.data, args.task = Path(__file__).parent / "data/toy_pairs.tsv", "pairs"
        vars(args).update(TOY | ({"epochs": 2} if args.smoke else {}))
    vars(args).update({name: value for name, value in TASKS[args.task].items() if getattr(args, name, None) is None})
    return args


def make_model(args, tokenizer, dtype="float32", **options):
    """A model to train: with random weights, or pretrained ones."""
    keras.utils.set_random_seed(args.seed)
    if args.task == "titles":
        return bert4x.load(args.model, application="unilm", dtype=dtype, **options)
    config = {
        "vocab_size": tokenizer.vocab_size, "hidden_size": args.hidden, "num_hidden_layers": args.layers,
        "num_attention_heads": 4, "intermediate_size": 512, "hidden_act": "relu", "dropout_rate": args.dropout,
        "segment_vocab_size": 0, "pad_token_id": tokenizer.pad_id, "initializer_range": args.hidden**-0.5,
    }  # fmt: skip
    model = bert4x.build_transformer_model(
        config, model="transformer", with_mlm="linear", dtype=dtype, layer_norm_eps=1e-6, **options
    )
    model.tokenizer = tokenizer
    return model


def train(name, triples, args, tokenizer, symbols, epochs, directions=training.DIRECTIONS, start=None, **options):
    """A trained model. With --resume, one that is there is read, and one that is half done is trained to its end."""
    file, rows, part = args.output / f"{name}.weights.h5", args.batch * len(directions), options.pop("part", (0, 1))
    if not (args.resume and file.exists()):
        make_batch = training.make_batch if args.task == "pairs" else training.make_unilm_batch
        batches = training.Triples(triples, symbols, rows, directions, args.seed, make_batch)
        model = make_model(args, tokenizer, "mixed_bfloat16" if args.mixed_bfloat16 else "float32", **options)
        if start is not None:
            model.set_weights(start.get_weights())
        print(f"{name}: {len(triples):,} triples, {len(batches)} batches of {rows} rows", flush=True)
        state, loss = args.output / f"{name}.training.safetensors", training.SmoothedCrossEntropy()
        train_epochs(model, batches, epochs, args.learning_rate, state, loss, args.resume, part)
        model.save_weights(file)
    model = make_model(args, tokenizer, **options)
    model.load_weights(file)
    return model


def main():
    args = arguments()
    args.output.mkdir(parents=True, exist_ok=True)
    pairs, tests = read_pairs(args.data, args.test)
    titles = args.task == "titles"
    tokenizer = bert4x.load_tokenizer(args.model) if titles else pair_tokenizer(pairs, args.vocab, args.vocab_size)
    sources = encode(tokenizer, [source for source, _ in pairs], args.source)
    targets = [ids[1:-1] for ids in encode(tokenizer, [target for _, target in pairs], args.target + 2)]
    print(f"{len(pairs):,} pairs to train on, {len(tests):,} held-out sources, {tokenizer.vocab_size} tokens")

    # The first token of a target says in which direction it is written.
    symbols = training.Symbols(tokenizer.start_id, tokenizer.mask_id, tokenizer.end_id, tokenizer.pad_id)
    special = [tokenizer.pad_id, tokenizer.unk_id, tokenizer.start_id, tokenizer.mask_id]
    search = {"max_new_tokens": args.target + 1, "suppress_ids": special}

    # 1. Two plain models, one for each direction: baselines, and what writes the pseudo targets.
    gold = training.gold_triples(sources, targets)
    plain = {way: train(way, gold, args, tokenizer, symbols, args.epochs, [way]) for way in training.DIRECTIONS}

    # 2. One model that writes in either direction, as its first token says; the two do not see each other yet.
    alone = round(args.alone * args.epochs)
    start = train("either", gold, args, tokenizer, symbols, alone, part=(0, args.alone)) if alone else None

    # 3. It goes on with both at once. Were both targets the true one, each direction could read its future in what the
    # other has written; so one of them is what a model makes of the source. Every source is there twice, once for
    # each: in half the epochs it is seen as often.
    file = args.output / "pseudo_targets.json"
    if not (args.resume and file.exists()):
        writers = dict.fromkeys(plain, start) if args.two_pass else plain
        pseudo = [training.decode_one_way(writers[way], sources, way, symbols, **search) for way in writers]
        file.write_text(json.dumps(pseudo))
    triples = training.pseudo_triples(sources, targets, *json.loads(file.read_text()))
    together, part = (args.epochs - alone + 1) // 2, (args.alone, 1)
    model = train("both", triples, args, tokenizer, symbols, together, start=start, part=part, bidirectional=True)

    # 4. The comparison, with the same number of beams in all.
    texts, references = [source for source, _ in tests], [targets for _, targets in tests]
    test_sources, search = encode(tokenizer, texts, args.source), search | {"num_beams": args.beams}
    decoder = bert4x.BidirectionalDecoder(model, symbols.l2r, symbols.r2l)
    print("| model | BLEU (characters) | seconds |\n|---|---|---|")
    for name in (*training.DIRECTIONS, "both"):
        began = time.perf_counter()
        if name == "both":
            found = training.decode_both_ways(decoder, test_sources, symbols, length_penalty=0.6, **search)
        else:
            found = training.decode_one_way(plain[name], test_sources, name, symbols, length_penalty=0.6, **search)
        seconds = time.perf_counter() - began
        said = [tokenizer.decode(ids) for ids in found]
        score = bleu(said, references, tokenize="char", lowercase=True).score
        print(f"| {name} | {score:.2f} | {seconds:.1f} |", flush=True)

    # 5. One of them, seen from both sides.
    text = max(texts[:20], key=len)
    paths = decoder.paths(text, args.beams, **{name: search[name] for name in ("max_new_tokens", "suppress_ids")})[0]
    decoding_paths(paths, tokenizer, args.output / "paths.png", title=text if len(text) < 80 else "")
    print(f"{text}\n-> {decoder.text(paths[0])}\npicture: {args.output / 'paths.png'}")


if __name__ == "__main__":
    main()
