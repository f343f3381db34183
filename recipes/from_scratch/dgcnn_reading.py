"""Answers found in passages by dilated gated convolutions alone: DGCNN (Su, kexue.fm/archives/5409, 6906).

Each place of a passage is its character, the word that the character is part of, and whether it, and the pair that it
begins, stand in the question too. Convolutions that see ever farther read it beside a single vector of the question;
each place then has a score as the first and the last of the answer.

    python recipes/from_scratch/dgcnn_reading.py
    python recipes/from_scratch/dgcnn_reading.py --train cmrc2018_train.json --valid cmrc2018_dev.json --epochs 15

Files are JSON as of SQuAD and CMRC 2018, also .xz; without --valid, the last fifth of --train is scored on. Words are
jieba's (`pip install "bert4x[cpm]"`). In the article, word vectors and far more questions make up for what a BERT has
read; the scores are those of CMRC 2018, as of `recipes/reading_comprehension.py`.
"""

import time
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np
from keras import ops

from bert4x import recipe
from bert4x.layers import AttentionPooling, DilatedGatedConv
from bert4x.metrics.reading import score_answers
from bert4x.tasks.readers import read_squad
from bert4x.training.losses import masked_crossentropy

TOY = Path(__file__).parents[1] / "data/toy_reading.json"


@dataclass
class Arguments:
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 1, "size": 16}

    train: Path | None = recipe.option(None, "file to train on; default: toy data")
    valid: Path | None = recipe.option(None, "file to score on; default: the last fifth of --train")
    output: Path = recipe.option(Path("runs/dgcnn_reading"), "folder of the model and answers.json")
    epochs: int = recipe.option(10, "times that every question is seen", least=1)
    batch_size: int = recipe.option(32, "questions of a batch", least=1)
    size: int = recipe.option(64, "of embeddings and convolutions", least=2)
    max_length: int = recipe.option(512, "characters of a passage; what is longer is read up to there", least=8)
    longest_answer: int = recipe.option(64, "characters of an answer", least=1)
    learning_rate: float = recipe.option(1e-3, "of Adam; a tenth in the last third", above=0)
    backend: Literal["tensorflow", "jax", "torch"] | None = recipe.option(None, "of Keras")
    seed: int = recipe.option(0, "of weights and order", least=0)
    smoke: bool = recipe.option(False, "toy data: does it run?")


def words_of(text):
    """For each character the word that it is part of."""
    import jieba

    jieba.setLogLevel("WARNING")
    return [word for word in jieba.cut(text) for _ in word]


def arrays(rows, characters, words, args):
    """Shape: N rows -> ids of characters and words of questions (N, 48) and passages (N, T); flags (N, T, 2)"""
    found = {name: np.zeros((len(rows), 48), "int32") for name in ("question", "question_words")}
    found |= {name: np.zeros((len(rows), args.max_length), "int32") for name in ("passage", "passage_words")}
    found["shared"] = np.zeros((len(rows), args.max_length, 2), "float32")
    for i, row in enumerate(rows):
        for name in ("question", "passage"):
            ids, length = found[name][i], found[name].shape[1]
            text, parts = row[name][:length], row["words"][name][:length]
            ids[: len(text)] = [characters.get(c, 1) for c in text]
            found[f"{name}_words"][i, : len(text)] = [words.get(word, 1) for word in parts]
        pairs = {row["question"][j : j + 2] for j in range(len(row["question"]) - 1)}
        for j, c in enumerate(row["passage"][: args.max_length]):
            found["shared"][i, j] = c in row["question"], row["passage"][j : j + 2] in pairs
    return found


def network(characters, words, args):
    """Two softmaxes over the places of the passage: of the first and the last character of the answer."""
    shapes = {"question": (48,), "question_words": (48,), "passage": (args.max_length,)}
    shapes |= {"passage_words": (args.max_length,), "shared": (args.max_length, 2)}
    inputs = {name: keras.Input(s, name=name, dtype="float32" if len(s) > 1 else "int32") for name, s in shapes.items()}
    character = keras.layers.Embedding(len(characters) + 2, args.size, name="characters")
    word = keras.layers.Embedding(len(words) + 2, args.size, name="words")
    mixed = {name: character(inputs[name]) + word(inputs[f"{name}_words"]) for name in ("question", "passage")}
    q, p_mask, q_mask = mixed["question"], inputs["passage"] > 0, inputs["question"] > 0
    for rate in (1, 2, 1):
        q = DilatedGatedConv(rate)(q, mask=q_mask)
    q = keras.layers.RepeatVector(args.max_length)(AttentionPooling()(q, mask=q_mask))
    p = keras.layers.Dense(args.size)(keras.layers.Concatenate()([mixed["passage"], q, inputs["shared"]]))
    for rate in (1, 2, 4, 8, 16, 1):
        p = DilatedGatedConv(rate)(p, mask=p_mask)
    h = keras.layers.Dense(args.size, activation="relu")(keras.layers.Concatenate()([p, q, inputs["shared"]]))
    scores = ops.where(ops.expand_dims(p_mask, -1), keras.layers.Dense(2)(h), -1e4)
    return keras.Model(inputs, ops.transpose(scores, (0, 2, 1)))


def answer(scores, passage, longest):
    """The part of the passage whose first and last places have the highest sum. Shape: (2, T)"""
    first, last = scores[:, : len(passage)]
    apart = np.arange(len(last))[None] - np.arange(len(first))[:, None]
    sums = np.where((apart >= 0) & (apart < longest), first[:, None] + last[None], -np.inf)
    start, end = np.unravel_index(sums.argmax(), sums.shape)
    return passage[start : end + 1]


def main(args):
    keras.utils.set_random_seed(args.seed)

    # 1. Questions on passages; those without an answer in what is read cannot be learnt from.
    rows = read_squad(args.train or TOY)
    valid = read_squad(args.valid) if args.valid else rows[len(rows) * 4 // 5 :]
    rows = rows if args.valid else rows[: len(rows) * 4 // 5]
    cut = {text: words_of(text) for row in (*rows, *valid) for text in (row["question"], row["passage"])}
    for row in (*rows, *valid):
        row["words"] = {name: cut[row[name]] for name in ("question", "passage")}
    spans = [next(((s, s + len(a) - 1) for a, s in row["answers"] if a and s is not None
                   and s + len(a) <= args.max_length), None) for row in rows]  # fmt: skip
    kept = [row for row, span in zip(rows, spans, strict=True) if span]
    print(f"{len(kept)} of {len(rows)} questions to learn from, {len(valid)} to score on")
    targets = np.array([span for span in spans if span], "int32")
    counts = (
        Counter(c for row in kept for c in row["passage"]),
        Counter(w for row in kept for w in row["words"]["passage"]),
    )
    characters, words = ({x: i for i, (x, n) in enumerate(c.most_common(), 2) if n > 2} for c in counts)

    # 2. Training.
    model = network(characters, words, args)
    print(f"{model.count_params():,} parameters, {len(characters)} characters, {len(words)} words")
    inputs, tail = arrays(kept, characters, words, args), args.epochs // 3
    for epochs, rate in ((args.epochs - tail, args.learning_rate), (tail, args.learning_rate / 10)):
        if epochs:
            model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), masked_crossentropy)
            model.fit(inputs, targets, batch_size=args.batch_size, epochs=epochs, verbose=0 if args.smoke else 2)

    # 3. Answers to questions that it has not seen.
    given, began = arrays(valid, characters, words, args), time.process_time()
    scores = model.predict(given, batch_size=args.batch_size, verbose=0)
    spent = time.process_time() - began
    answers = [answer(s, row["passage"], args.longest_answer) for s, row in zip(scores, valid, strict=True)]
    found = score_answers(answers, [[text for text, _ in row["answers"]] for row in valid])
    print(f"exact match {found.exact_match:.3f}, F1 {found.f1:.3f}; {len(valid) / spent:.0f} questions a second")
    for row, text in list(zip(valid, answers, strict=True))[:5]:
        print(f"{row['question']} {' / '.join(a for a, _ in row['answers'])} -> {text}")
    args.output.mkdir(parents=True, exist_ok=True)
    recipe.write_json(args.output / "answers.json", {row["id"]: a for row, a in zip(valid, answers, strict=True)})
    model.save(args.output / "model.keras")
    return found


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
