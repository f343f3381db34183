"""Chinese chess for models that write moves: which words there are, what the rules allow, and two simple players. The
rules are those of cchess (`pip install cchess`).

A move is a text such as "h2e2": from file h, rank 2 to file e, rank 2; red sits at rank 0. A game is a list of moves.
"""

import itertools
import random
from collections.abc import Callable, Sequence
from typing import NamedTuple

from bert4x.errors import RunError

FILES = "abcdefghi"
VALUES = dict(zip("krcnbap", (1000, 9, 4.5, 4, 2, 2, 1), strict=True))  # of pieces, counted in soldiers


def possible_moves() -> list[str]:
    """The 2,550 moves that some piece can make on an empty board: along a line, or a step of those below."""
    found, steps = [], {(1, 1), (2, 2), (1, 2)}  # of advisors, elephants, horses
    for a, b in itertools.permutations([f"{file}{rank}" for file in FILES for rank in range(10)], 2):
        step = sorted((abs(ord(a[0]) - ord(b[0])), abs(int(a[1]) - int(b[1]))))
        if step[0] == 0 or tuple(step) in steps:
            found.append(a + b)
    return found


def mirrored(game: list[str]) -> list[str]:
    """The same game with left and right exchanged."""
    return [move.translate(str.maketrans(FILES, FILES[::-1])) for move in game]


class Board:
    """A game, from the beginning.

    Raises: RunError without cchess.
    """

    def __init__(self, fen: str | None = None):
        try:
            import cchess
        except ImportError:
            raise RunError("the rules of Chinese chess need cchess: pip install cchess") from None
        self.rules, self.board = cchess, cchess.ChessBoard(fen or cchess.FULL_INIT_FEN)

    @property
    def fen(self) -> str:
        """The board and whose move it is, in Forsyth-Edwards notation."""
        return self.board.to_fen()

    def moves(self) -> list[str]:
        """What the rules allow: the moves after which one's own king cannot be taken."""
        found, board = [], self.board
        for start, end in list(board.create_moves()):
            piece, taken = board.pop_fench(start), board.get_fench(end)
            board.put_fench(piece, end)
            board.move_player.next()
            if not board.is_checking():
                found.append(self.rules.pos2iccs(start, end))
            board.move_player.next()
            board.put_fench(piece, start)
            board.put_fench(taken, end)
        return found

    def make(self, move: str) -> None:
        """Moves, and gives the turn to the other side."""
        start, end = self.rules.iccs2pos(move)
        self.board.put_fench(self.board.pop_fench(start), end)
        self.board.move_player.next()

    def worth(self, move: str) -> float:
        """Of what a move takes, in soldiers."""
        taken = self.board.get_fench(self.rules.iccs2pos(move)[1])
        return VALUES[taken.lower()] if taken else 0

    def ahead(self) -> float:
        """How much more red's pieces are worth than black's, in soldiers."""
        return sum(VALUES[c.lower()] * (1 if c.isupper() else -1) for c in self.fen.split()[0] if c.isalpha())


def at_random(board: Board, moves: list[str], rng: random.Random) -> str:
    """Any move."""
    return rng.choice(moves)


def greedy(board: Board, moves: list[str], rng: random.Random) -> str:
    """Takes the most valuable piece that can be taken."""
    worth = [board.worth(move) for move in moves]
    return rng.choice([move for move, value in zip(moves, worth, strict=True) if value == max(worth)])


class Match(NamedTuple):
    """How often we won, it was a draw, we lost; how many soldiers we were ahead by in the end; the games."""

    won: int
    drawn: int
    lost: int
    ahead: float
    games: list[list[str]]


def compete(choose: Callable, player: Callable, matches: int, longest: int, seed: int = 0) -> Match:
    """Games side by side against a player; we are red in every other. Who has no move has lost; after `longest` moves
    it is a draw.

    Args:
        choose: of games, and the moves that are allowed in each, one move for each.
        player: such as `at_random`.
    """
    rng, won, lost = random.Random(seed), 0, 0
    boards, games = [Board() for _ in range(matches)], [[] for _ in range(matches)]
    going = list(range(matches))
    for turn in range(longest):
        moves = {i: boards[i].moves() for i in going}
        for i in [i for i in going if not moves[i]]:
            going.remove(i)
            won, lost = (won, lost + 1) if i % 2 == turn % 2 else (won + 1, lost)
        ours = [i for i in going if i % 2 == turn % 2]
        chosen = choose([games[i] for i in ours], [moves[i] for i in ours]) if ours else []
        chosen = dict(zip(ours, chosen, strict=True))
        for i in going:
            games[i].append(chosen[i] if i in chosen else player(boards[i], moves[i], rng))
            boards[i].make(games[i][-1])
    ahead = sum(board.ahead() * (-1) ** i for i, board in enumerate(boards)) / matches
    return Match(won, len(going), lost, ahead, games)


def play(choose: Callable[[Sequence, Sequence], Sequence[str]]) -> None:
    """A game in the terminal against a person, who plays red."""
    board, game = Board(), []
    while moves := board.moves():
        board.board.print_board()
        if len(game) % 2:
            move = choose([game], [moves])[0]
            print("model:", move)
        elif not (move := input("your move, such as h2e2; nothing ends: ").strip()):
            return
        if move not in moves:
            print(f"{move} is not allowed; one of {' '.join(moves)} is")
            continue
        board.make(move)
        game.append(move)
    print("you have won" if len(game) % 2 else "the model has won")
