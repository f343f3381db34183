"""Chinese chess by a language model: it is told nothing but the moves of games, as a text (Su, kexue.fm/archives/7877).

A game is a text whose words are moves, "h2e2 h9g7 ...", and the next move is its next word: of those that the rules
allow, the likeliest. The rules are cchess' (`pip install "bert4x[chess]"`); one pass of the model scores all of them.

    python recipes/from_scratch/chinese_chess.py
    python recipes/from_scratch/chinese_chess.py --games games.pgn.xz --epochs 10 --matches 200
    python recipes/from_scratch/chinese_chess.py --play

The embedded model, whose vocabulary becomes moves made of the characters that spell them, is compared with the same one
from random weights, and plays against who moves at random, and who takes the most that can be taken. In the output
folder: both as .keras, and a game of the first as a picture. --play: you are red.
"""

import itertools
import lzma
import random
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import keras
import numpy as np

import bert4x
from bert4x import plots, recipe
from bert4x.errors import RunError
from bert4x.training.losses import masked_crossentropy

try:
    import cchess
except ImportError:
    cchess = None

TOY = Path(__file__).parents[1] / "data/toy_xiangqi.pgn"
SQUARES = [f"{file}{rank}" for file in "abcdefghi" for rank in range(10)]
STEPS = {(1, 1), (2, 2), (1, 2), (2, 1)}  # of advisors, elephants, horses; all others move along a line
VALUES = dict(zip("krcnbap", (1000, 9, 4.5, 4, 2, 2, 1), strict=True))


@dataclass
class Arguments:
    smoke_values: ClassVar[dict[str, Any]] = {"epochs": 1, "held_out": 2, "matches": 2, "longest": 16}

    games: Path | None = recipe.option(None, "a PGN of UCI moves, also .xz; default: twelve games")
    output: Path = recipe.option(Path("runs/chinese_chess"), "folder of the models and the picture")
    epochs: int = recipe.option(4, "times that each game is seen, as it was or mirrored", least=1)
    longest: int = recipe.option(120, "moves of both sides of a game that are read or played", least=8)
    held_out: int = recipe.option(100, "games to score on", least=1)
    matches: int = recipe.option(200, "against each player, half of them as red", least=2)
    batch_size: int = recipe.option(32, "games of a batch", least=1)
    learning_rate: float = recipe.option(5e-4, "of Adam", above=0)
    play: bool = recipe.option(False, "no training: play in the terminal with the model of the output folder")
    backend: Literal["tensorflow", "jax", "torch"] | None = recipe.option(None, "of Keras")
    seed: int = recipe.option(0, "of weights, order and players", least=0)
    smoke: bool = recipe.option(False, "a few games: does it run?")


def step(a, b):
    return tuple(sorted((abs(ord(a[0]) - ord(b[0])), abs(int(a[1]) - int(b[1])))))


MOVES = [a + b for a, b in itertools.permutations(SQUARES, 2) if step(a, b)[0] == 0 or step(a, b) in STEPS]
FIRST = 2 + 19  # the id of the first move: padding, the beginning, and the characters of moves come before
IDS = {move: FIRST + i for i, move in enumerate(MOVES)}


def models():
    """The embedded model, each move the mean of its four characters by their places; and the same from nothing."""
    known = bert4x.load().tokenizer.token_dict
    characters = "0123456789abcdefghi"
    spelt = [([2 + characters.index(c) for c in move], [4, 3, 2, 1]) for move in MOVES]
    keep = [known["[PAD]"], known["[CLS]"], *(known[c] for c in characters)]
    start = bert4x.load(application="lm", keep_tokens=keep, compound_tokens=spelt)
    config = Path(bert4x.default_model()) / "config.json"
    size = FIRST + len(MOVES)
    nothing = bert4x.build_transformer_model(config, application="lm", with_mlm="linear", vocab_size=size)
    return {"pretrained": start, "from nothing": nothing}


def as_batch(games, length):
    """Shape: N games -> ids (N, length), and the move that follows at each place, -1 where there is none"""
    ids, targets = np.zeros((len(games), length), "int32"), np.full((len(games), length), -1, "int32")
    for row, following, game in zip(ids, targets, games, strict=True):
        numbers = [1, *(IDS[move] for move in game)]
        row[: len(numbers)], following[: len(numbers) - 1] = numbers[:length], numbers[1 : length + 1]
    return {"token_ids": ids, "segment_ids": np.zeros_like(ids)}, targets


def mirrored(game):
    """The same game with left and right exchanged."""
    return [move.translate(str.maketrans("abcdefghi", "ihgfedcba")) for move in game]


def logits(model, games):
    """The scores of all moves as the next of each game. Shape: N games -> (N, V)"""
    length = -(-(max(map(len, games)) + 1) // 16) * 16  # of few lengths, so that little is compiled
    parts = [games[i : i + 64] for i in range(0, len(games), 64)]
    every = (keras.ops.convert_to_numpy(model(as_batch(part, length)[0])) for part in parts)
    found = [scores[range(len(part)), [len(game) for game in part]] for scores, part in zip(every, parts, strict=True)]
    return np.concatenate(found)


def legal(board):
    """The moves that the rules allow: those after which one's own king cannot be taken."""
    found = []
    for start, end in list(board.create_moves()):
        piece, taken = board.pop_fench(start), board.get_fench(end)
        board.put_fench(piece, end)
        board.move_player.next()
        if not board.is_checking():
            found.append(cchess.pos2iccs(start, end))
        board.move_player.next()
        board.put_fench(piece, start)
        board.put_fench(taken, end)
    return found


def make(board, move):
    """Moves, and gives the turn to the other side; returns what was taken."""
    start, end = cchess.iccs2pos(move)
    taken = board.get_fench(end)
    board.put_fench(board.pop_fench(start), end)
    board.move_player.next()
    return taken


def agreement(model, games, length):
    """Of all places of games: how often the likeliest move is legal, and how often the player's is the likeliest legal
    one, or among three.
    """
    counts = np.zeros(3)
    for game in games:
        scores = keras.ops.convert_to_numpy(model(as_batch([game], length)[0]))[0]
        board = cchess.ChessBoard(cchess.FULL_INIT_FEN)
        for row, move in zip(scores, game, strict=False):
            ids = np.array([IDS[one] for one in legal(board)])
            best = ids[np.argsort(-row[ids])[:3]]
            counts += [row.argmax() in ids, IDS[move] == best[0], IDS[move] in best]
            make(board, move)
    places = sum(min(len(game), length) for game in games)
    return dict(zip(("legal", "top 1", "top 3"), counts / places, strict=True))


def best_of(moves, scores):
    return max(moves, key=lambda move: scores[IDS[move]])


def at_random(board, moves, rng):
    return rng.choice(moves)


def greedy(board, moves, rng):
    """Takes the most valuable piece that can be taken."""
    taken = [board.get_fench(cchess.iccs2pos(move)[1]) for move in moves]
    worth = [VALUES[piece.lower()] if piece else 0 for piece in taken]
    return rng.choice([move for move, value in zip(moves, worth, strict=True) if value == max(worth)])


def compete(model, player, matches, longest, seed):
    """Games of the model, as red in every other, against a player, side by side: [won, drawn, lost], and the games. Who
    has no move has lost; after `longest` moves it is a draw.
    """
    rng, result = random.Random(seed), [0, 0, 0]
    boards, games = [cchess.ChessBoard(cchess.FULL_INIT_FEN) for _ in range(matches)], [[] for _ in range(matches)]
    going = list(range(matches))
    for turn in range(longest):
        moves = {i: legal(boards[i]) for i in going}
        for i in [i for i in going if not moves[i]]:
            going.remove(i)
            result[2 if i % 2 == turn % 2 else 0] += 1
        ours = [i for i in going if i % 2 == turn % 2]
        scores = dict(zip(ours, logits(model, [games[i] for i in ours]), strict=True)) if ours else {}
        for i in going:
            chosen = best_of(moves[i], scores[i]) if i in scores else player(boards[i], moves[i], rng)
            make(boards[i], chosen)
            games[i].append(chosen)
    result[1] = len(going)
    return result, games


def play(model):
    """A game in the terminal: you are red."""
    board, game = cchess.ChessBoard(cchess.FULL_INIT_FEN), []
    while moves := legal(board):
        board.print_board()
        if len(game) % 2:
            move = best_of(moves, logits(model, [game])[0])
            print("model:", move)
        else:
            move = input("your move, such as h2e2; nothing ends: ").strip()
            if not move:
                return
            if move not in moves:
                print(f"{move} is not allowed; one of {' '.join(moves)} is")
                continue
        make(board, move)
        game.append(move)
    print("you have won" if len(game) % 2 else "the model has won")


def main(args):
    if cchess is None:
        raise RunError('the rules of Chinese chess need cchess: pip install "bert4x[chess]"')
    if args.play:
        return play(bert4x.load(args.output / "pretrained.keras"))
    keras.utils.set_random_seed(args.seed)

    # 1. Games as texts; some are held out.
    path = args.games or TOY
    with (lzma.open if path.suffix == ".xz" else open)(path, "rt", encoding="utf-8") as file:
        games = [re.findall(r"\b[a-i]\d[a-i]\d\b", game) for game in file.read().split("[Event")[1:]]
    random.Random(args.seed).shuffle(games)
    train, held = games[args.held_out :], games[: args.held_out]
    longer = sum(len(game) > args.longest for game in games)
    print(f"{len(train)} games to learn from, {len(held)} held out; of {longer} only the first {args.longest} moves")

    # 2. The same training of both models: each game as it was, or mirrored.
    results = {}
    for name, model in models().items():
        model.compile(keras.optimizers.Adam(args.learning_rate, global_clipnorm=1.0), masked_crossentropy)
        rng = random.Random(args.seed)
        for epoch in range(args.epochs):
            seen = [mirrored(game) if rng.random() < 0.5 else game for game in train]
            inputs, targets = as_batch(seen, args.longest)
            loss = model.fit(inputs, targets, batch_size=args.batch_size, verbose=0).history["loss"][-1]
            print(f"{name}, epoch {epoch + 1}: loss {loss:.3f}", flush=True)
        args.output.mkdir(parents=True, exist_ok=True)
        model.save(args.output / f"{name.replace(' ', '_')}.keras")

        # 3. Beside the players, on games that it has not seen; and against others.
        results[name] = agreement(model, held, args.longest)
        print(f"{name}:", ", ".join(f"{what} {share:.3f}" for what, share in results[name].items()), flush=True)
        for player in (at_random, greedy):
            result, played = compete(model, player, args.matches, args.longest, args.seed)
            results[name][player.__name__] = result
            print(f"{name} against {player.__name__}: won {result[0]}, drawn {result[1]}, lost {result[2]}", flush=True)

    # 4. How the first game of the last match ended.
    board = cchess.ChessBoard(cchess.FULL_INIT_FEN)
    for move in played[0]:
        make(board, move)
    plots.chess_board(board.to_fen(), args.output / "board.png", "red is the model", played[0][-1])
    return results


if __name__ == "__main__":
    recipe.run(main, Arguments, __doc__)
