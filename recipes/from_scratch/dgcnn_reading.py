"""Answers found in passages by dilated gated convolutions alone: DGCNN (Su, kexue.fm/archives/5409, 6906).

Each place of a passage is its character, the word that the character is part of, and whether it, and the pair that it
begins, stand in the question too. Convolutions that see ever farther read it beside a single vector of the question;
each place then has a score as the first and the last of the answer. Training reads a piece of the passage with the
answer in it, another one every time, as convolutions do not care where a piece begins.

    python recipes/from_scratch/dgcnn_reading.py
    python recipes/from_scratch/dgcnn_reading.py --train cmrc2018_train.json --valid cmrc2018_dev.json --epochs 15

Files are JSON as of SQuAD and CMRC 2018, also .xz; without --valid, the last fifth of --train is scored on. Words are
jieba's (`pip install jieba`). In the article, word vectors and far more questions make up for what a BERT has
read; the scores are those of CMRC 2018, as of `recipes/reading_comprehension.py`.
"""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np
from keras import ops

from bert4x import recipe
from bert4x.layers import AttentionPooling, DilatedGatedConv
from bert4x.metrics.reading import score_answers
from bert4x.tasks.readers import read_squad
from bert4x.tokenizers.symbols import Symbols
from bert4x.training.losses import masked_crossentropy
from bert4x.training.words import cut_words

TOY = Path(__file__).parents[1] / "data/toy_reading.json"
QUESTION = 48  # characters of a question that are read


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 1, "size": 16}

    train: Path | None = recipe.option(None, "file to train on; default: toy data")
    valid: Path | None = recipe.option(None, "file to score on; default: the last fifth of --train")
    output: Path = recipe.option(Path("runs/dgcnn_reading"), "folder of the model and answers.json")
    epochs: int = recipe.option(10, "times that every question is seen", least=1)
    batch_size: int = recipe.option(32, "questions of a batch", least=1)
    size: int = recipe.option(64, "of embeddings and convolutions", least=2)
    max_length: int = recipe.option(512, "characters of a passage; what is longer is read up to there", least=8)
    piece: int = recipe.option(192, "characters of a passage that are read at once in training", least=8)
    longest_answer: int = recipe.option(64, "characters of an answer", least=1)
    learning_rate: float = recipe.option(1e-3, "of Adam; a tenth in the last third", above=0)


def arrays(rows, cut, characters, words, length):
    """Shape: N rows -> ids of characters and words of questions (N, 48) and passages (N, T); flags (N, T, 2)"""
    found = {"shared": np.zeros((len(rows), length, 2), "float32")}
    for name, size in (("question", QUESTION), ("passage", length)):
        found[name] = characters.rows([row[name] for row in rows], size)
        of_characters = [[word for word in cut[row[name]] for _ in word] for row in rows]
        found[f"{name}_words"] = words.rows(of_characters, size)
    for flags, row in zip(found["shared"], rows, strict=True):
        question, passage = row["question"], row["passage"]
        pairs = {question[j : j + 2] for j in range(len(question) - 1)}
        for j, c in enumerate(passage[:length]):
            flags[j] = c in question, passage[j : j + 2] in pairs
    return found


def network(characters, words, size):
    """The scores (B, 2, T) of each place of the passage as the first and as the last of the answer."""
    layers, passage = keras.layers, (None,)
    shapes = {"question": (QUESTION,), "question_words": (QUESTION,), "passage": passage, "passage_words": passage}
    inputs = {name: keras.Input(shape, name=name, dtype="int32") for name, shape in shapes.items()}
    inputs["shared"] = keras.Input((None, 2), name="shared")
    character, word = layers.Embedding(characters, size), layers.Embedding(words, size)
    q, p = (
        layers.Dropout(0.2)(character(inputs[name]) + word(inputs[f"{name}_words"])) for name in ("question", "passage")
    )
    q_mask, p_mask = inputs["question"] > 0, inputs["passage"] > 0
    for rate in (1, 2, 1):
        q = DilatedGatedConv(rate)(q, mask=q_mask)
    q = AttentionPooling()(q, mask=q_mask)[:, None] + ops.zeros_like(p)  # at each place of the passage
    p = layers.Dense(size)(layers.Concatenate()([p, q, inputs["shared"]]))
    for rate in (1, 2, 4, 8, 16, 1):
        p = DilatedGatedConv(rate)(p, mask=p_mask)
    h = layers.Dense(size, activation="relu")(layers.Concatenate()([p, q, inputs["shared"]]))
    scores = ops.where(p_mask[..., None], layers.Dense(2)(h), -1e4)
    return keras.Model(inputs, ops.transpose(scores, (0, 2, 1)))


def pieces(inputs, spans, size, rng):
    """Of each passage a piece of so many characters, with the answer (first, last) in it."""
    length = inputs["passage"].shape[1]
    size = min(size, length)
    least = np.maximum(spans[:, 1] + 1 - size, 0)
    starts = rng.integers(least, np.clip(spans[:, 0], least, length - size) + 1)
    places = starts[:, None] + np.arange(size)
    here = np.arange(len(spans))[:, None], places
    read = {name: inputs[name][here] for name in ("passage", "passage_words", "shared")}
    return inputs | read, spans - starts[:, None]


def answer(scores, passage, longest):
    """The part of the passage whose first and last places have the highest sum. Shape: (2, T)"""
    first, last = scores[:, : len(passage)]
    apart = np.arange(len(last))[None] - np.arange(len(first))[:, None]
    sums = np.where((apart >= 0) & (apart < longest), first[:, None] + last[None], -np.inf)
    start, end = np.unravel_index(sums.argmax(), sums.shape)
    return passage[start : end + 1]


def main(args):
    keras.utils.set_random_seed(args.seed)
    rng = np.random.default_rng(args.seed)

    # 1. Questions on passages; those without an answer in what is read cannot be learnt from.
    rows = read_squad(args.train or TOY)
    valid = read_squad(args.valid) if args.valid else rows[len(rows) * 4 // 5 :]
    rows = rows if args.valid else rows[: len(rows) * 4 // 5]
    cut = {text: cut_words(text) for text in {row[name] for row in (*rows, *valid) for name in ("question", "passage")}}
    kept, spans = [], []
    for row in rows:
        ends = [(start, start + len(a) - 1) for a, start in row["answers"] if a and start is not None]
        ends = [(start, end) for start, end in ends if end < args.max_length and end - start < args.piece]
        if ends:
            kept.append(row)
            spans.append(ends[0])
    print(f"{len(kept)} of {len(rows)} questions to learn from, {len(valid)} to score on")
    passages = list(dict.fromkeys(row["passage"] for row in kept))
    characters, words = Symbols(passages, least=2), Symbols((cut[text] for text in passages), least=2)

    # 2. Training; in the end, the moving average of the weights is kept.
    model = network(len(characters), len(words), args.size)
    print(f"{model.count_params():,} parameters, {len(characters)} characters, {len(words)} words")
    adam = keras.optimizers.Adam(args.learning_rate, global_clipnorm=1.0, use_ema=True, ema_momentum=0.99)
    model.compile(adam, masked_crossentropy)
    inputs = arrays(kept, cut, characters, words, args.max_length)
    for epoch in range(args.epochs):
        if epoch == args.epochs - args.epochs // 3:
            adam.learning_rate = args.learning_rate / 10
        given, targets = pieces(inputs, np.array(spans, "int32"), args.piece, rng)
        past = model.fit(given, targets, batch_size=args.batch_size, verbose=0)
        print(f"epoch {epoch + 1}: loss {past.history['loss'][-1]:.2f}", flush=True)
    adam.finalize_variable_values(model.trainable_variables)

    # 3. Answers to questions that it has not seen, from whole passages.
    given, began = arrays(valid, cut, characters, words, args.max_length), time.process_time()
    scores = model.predict(given, batch_size=args.batch_size, verbose=0)
    spent = time.process_time() - began
    answers = [answer(s, row["passage"], args.longest_answer) for s, row in zip(scores, valid, strict=True)]
    found = score_answers(answers, [[text for text, _ in row["answers"]] for row in valid])
    print(f"exact match {found.exact_match:.3f}, F1 {found.f1:.3f}; {len(valid) / spent:.0f} questions a second")
    for row, text in list(zip(valid, answers, strict=True))[:5]:
        print(f"{row['question']} {' / '.join(a for a, _ in row['answers'])} -> {text}")
    recipe.write_json(args.output / "answers.json", {row["id"]: a for row, a in zip(valid, answers, strict=True)})
    model.save(args.output / "model.keras")
    return found


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
