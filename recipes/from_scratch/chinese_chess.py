"""Chinese chess by a language model: it is told nothing but the moves of games, as a text (Su, kexue.fm/archives/7877).

A game is a text whose words are moves, "h2e2 h9g7 ...", and the next move is its next word: of those that the rules
allow, the likeliest. The rules are cchess' (`pip install cchess`); one pass of the model scores all of them.

    python recipes/from_scratch/chinese_chess.py
    python recipes/from_scratch/chinese_chess.py --games games.pgn.xz --epochs 10 --matches 200
    python recipes/from_scratch/chinese_chess.py --play

The embedded model, whose vocabulary becomes moves made of the characters that spell them, is compared with the same one
from random weights, and plays against who moves at random, and who takes the most that can be taken. In the output
folder: both as .keras, and a game of the first as a picture. --play: you are red.
"""

import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import keras
import numpy as np

import bert4x
from bert4x import plots, recipe
from bert4x.generation.xiangqi import FILES, Board, at_random, compete, greedy, mirrored, play, possible_moves
from bert4x.plots.figures import optional
from bert4x.training.corpus import CorpusFile
from bert4x.training.losses import masked_crossentropy

TOY = Path(__file__).parents[1] / "data/toy_xiangqi.pgn"
CHARACTERS = "0123456789" + FILES
MOVES = possible_moves()
IDS = {move: 2 + len(CHARACTERS) + i for i, move in enumerate(MOVES)}  # after padding, the beginning, the characters


@dataclass
class Arguments(recipe.FromNothing):
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 1, "held_out": 2, "matches": 2, "longest": 16}

    games: Path | None = recipe.option(None, "a PGN of UCI moves, also .xz; default: twelve games")
    output: Path = recipe.option(Path("runs/chinese_chess"), "folder of the models and the picture")
    epochs: int = recipe.option(6, "times that each game is seen, as it was or mirrored", least=1)
    longest: int = recipe.option(120, "moves of both sides of a game that are read or played", least=8)
    held_out: int = recipe.option(100, "games to score on", least=1)
    matches: int = recipe.option(200, "against each player, half of them as red", least=2)
    batch_size: int = recipe.option(16, "games of a batch", least=1)
    learning_rate: float = recipe.option(1e-3, "of Adam, its peak", above=0)
    play: bool = recipe.option(False, "no training: play in the terminal with the model of the output folder")


def models():
    """The embedded model, each move the mean of its four characters by their places; and the same from nothing."""
    known = bert4x.load().tokenizer.token_dict
    spelt = [([2 + CHARACTERS.index(c) for c in move], [4, 3, 2, 1]) for move in MOVES]
    keep = [known["[PAD]"], known["[CLS]"], *(known[c] for c in CHARACTERS)]
    start = bert4x.load(application="lm", keep_tokens=keep, compound_tokens=spelt)
    config, size = Path(bert4x.default_model()) / "config.json", len(keep) + len(MOVES)
    nothing = bert4x.build_transformer_model(config, application="lm", with_mlm="linear", vocab_size=size)
    return {"pretrained": start, "from nothing": nothing}


def as_batch(games, length):
    """Shape: N games -> ids (N, length), and the move that follows at each place, -1 where there is none"""
    ids, targets = np.zeros((len(games), length), "int32"), np.full((len(games), length), -1, "int32")
    for row, following, game in zip(ids, targets, games, strict=True):
        numbers = [1, *(IDS[move] for move in game)]
        row[: len(numbers)], following[: len(numbers) - 1] = numbers[:length], numbers[1 : length + 1]
    return {"token_ids": ids, "segment_ids": np.zeros_like(ids)}, targets


def chooser(model):
    """What takes, of the moves that are allowed in each of some games, the one that the model finds likeliest."""

    def choose(games, moves):
        length = -(-(max(map(len, games)) + 1) // 16) * 16  # of few lengths, so that little is compiled
        scores = model.predict_on_batch(as_batch(games, length)[0])
        next_ones = scores[range(len(games)), [len(game) for game in games]]
        return [max(some, key=lambda move: row[IDS[move]]) for some, row in zip(moves, next_ones, strict=True)]

    return choose


def agreement(model, games, length):
    """Of all places of games: how often the likeliest move is legal, and how often the player's is the likeliest legal
    one, or among three.
    """
    counts = np.zeros(3)
    for game in games:
        board, scores = Board(), model.predict_on_batch(as_batch([game], length)[0])[0]
        for row, move in zip(scores, game, strict=False):
            ids = np.array([IDS[one] for one in board.moves()])
            best = ids[np.argsort(-row[ids])[:3]]
            counts += [row.argmax() in ids, IDS[move] == best[0], IDS[move] in best]
            board.make(move)
    places = sum(min(len(game), length) for game in games)
    return dict(zip(("legal", "top 1", "top 3"), counts / places, strict=True))


def main(args):
    if args.play:
        return play(chooser(bert4x.load(args.output / "pretrained.keras")))
    keras.utils.set_random_seed(args.seed)
    board = Board()

    # 1. Games as texts; some are held out.
    text = "\n".join(CorpusFile(args.games or TOY).lines())
    games = [re.findall(r"\b[a-i]\d[a-i]\d\b", game) for game in text.split("[Event")[1:]]
    random.Random(args.seed).shuffle(games)
    train, held = games[args.held_out :], games[: args.held_out]
    longer = sum(len(game) > args.longest for game in games)
    print(f"{len(train)} games to learn from, {len(held)} held out; of {longer} only the first {args.longest} moves")

    # 2. The same training of both models: each game as it was, or mirrored.
    results, steps = {}, args.epochs * -(-len(train) // args.batch_size)
    for name, model in models().items():
        rate = keras.optimizers.schedules.CosineDecay(
            0.0, steps, warmup_target=args.learning_rate, warmup_steps=steps // 9
        )
        model.compile(keras.optimizers.Adam(rate, global_clipnorm=1.0), masked_crossentropy)
        rng = random.Random(args.seed)
        for epoch in range(args.epochs):
            inputs, targets = as_batch([mirrored(g) if rng.random() < 0.5 else g for g in train], args.longest)
            loss = model.fit(inputs, targets, batch_size=args.batch_size, verbose=0).history["loss"][-1]
            print(f"{name}, epoch {epoch + 1}: loss {loss:.3f}", flush=True)
        args.output.mkdir(parents=True, exist_ok=True)
        model.save(args.output / f"{name.replace(' ', '_')}.keras")

        # 3. Beside the players, on games that it has not seen; and against others.
        results[name] = agreement(model, held, args.longest)
        print(f"{name}:", ", ".join(f"{what} {share:.3f}" for what, share in results[name].items()), flush=True)
        for player in (at_random, greedy):
            match = compete(chooser(model), player, args.matches, args.longest, args.seed)
            results[name][player.__name__] = match[:3]
            print(f"{name} against {player.__name__}: won {match.won}, drawn {match.drawn}, lost {match.lost}", end="")
            print(f"; ahead by {match.ahead:.1f}", flush=True)

    # 4. How the first game of the last match ended.
    for move in match.games[0]:
        board.make(move)
    with optional():
        plots.chess_board(board.fen, args.output / "board.png", "red is the model", match.games[0][-1])
    return results


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
