"""Recipes of articles: games, convolutions that read, F1 as a loss; their smoke runs, and what they compute."""

import random
import runpy

import numpy as np
import pytest
from test_article_parts import RECIPES, smoke

from bert4x import errors
from bert4x.generation.xiangqi import Board, greedy, mirrored, possible_moves
from bert4x.tokenizers.symbols import Symbols
from bert4x.training.half_pointers import labels_of, pointed, spans_of
from bert4x.training.words import contexts


@pytest.mark.exhaustive  # two models of four layers are compiled: more than a minute on TensorFlow
def test_chinese_chess(tmp_path, monkeypatch, capsys):
    pytest.importorskip("cchess", reason="cchess is not installed: the rules of Chinese chess")
    results, said = smoke("chinese_chess", tmp_path, monkeypatch, capsys)
    assert set(results) == {"pretrained", "from nothing"} and "10 games to learn from, 2 held out" in said
    for scores in results.values():
        assert 0 <= scores["top 1"] <= scores["top 3"] <= 1
        assert all(sum(scores[player]) == 2 for player in ("at_random", "greedy"))
    assert (tmp_path / "run/board.png").exists() and (tmp_path / "run/pretrained.keras").exists()


def test_rules_of_chinese_chess():
    cchess = pytest.importorskip("cchess", reason="cchess is not installed: the rules of Chinese chess")
    board = Board()
    assert len(board.moves()) == 44 and board.fen == cchess.FULL_INIT_FEN and board.ahead() == 0
    assert set(board.moves()) < set(possible_moves()) and len(possible_moves()) == 2550
    takes = [move for move in board.moves() if board.worth(move)]
    assert takes == [greedy(board, takes, random.Random(0))] or {board.worth(move) for move in takes} == {4}
    board.make("b2b9")  # a cannon takes a horse
    assert board.ahead() == 4 and all(move[1] in "9876" for move in board.moves())
    pinned = Board("3k5/9/9/9/9/9/9/3R5/9/3K5 w")  # without the rook, the kings would face each other
    assert {move[2] for move in pinned.moves() if move.startswith("d2")} == {"d"}
    assert mirrored(["h2e2", "h9g7"]) == ["b2e2", "b9c7"]


def test_games_as_texts():
    recipe = runpy.run_path(str(RECIPES / "chinese_chess.py"))
    inputs, targets = recipe["as_batch"]([["h2e2", "h9g7"], ["h2e2"]], 3)
    ids = recipe["IDS"]
    assert inputs["token_ids"].tolist() == [[1, ids["h2e2"], ids["h9g7"]], [1, ids["h2e2"], 0]]
    assert targets.tolist() == [[ids["h2e2"], ids["h9g7"], -1], [ids["h2e2"], -1, -1]]


def test_symbols():
    symbols = Symbols(["甲乙甲", "甲丙丙"], least=2)
    assert len(symbols) == 4 and symbols.symbols == ["甲", "丙"]
    assert symbols.rows(["丙乙甲", ["甲"]], 2).tolist() == [[3, 1], [2, 0]]
    assert Symbols([["大", "人"], ["大"]], most=1).numbers == {"大": 2}


@pytest.mark.sweep("recipes of articles")
def test_smooth_f1_as_a_recipe(tmp_path, monkeypatch, capsys):
    scores, said = smoke("smooth_f1", tmp_path, monkeypatch, capsys)
    assert set(scores) == {"cross-entropy", "smooth F1"} and all(0 <= f <= 1 for one in scores.values() for f in one)
    assert "of them" in said and (tmp_path / "run/scores.json").exists()


def test_a_board_of_chinese_chess(tmp_path):
    pytest.importorskip("matplotlib", reason="matplotlib is not installed")
    from bert4x.plots import chess_board

    figure = chess_board(
        "rnbakabnr/9/1c5c1/p1p1p1p1p/9/9/P1P1P1P1P/1C5C1/9/RNBAKABNR w", tmp_path / "b.png", move="h2e2"
    )
    drawn = {(text.get_text(), text.get_position()) for text in figure.axes[0].texts}
    assert {("帅", (4, 0)), ("将", (4, 9)), ("炮", (7, 2)), ("卒", (0, 6))} <= drawn and (tmp_path / "b.png").exists()
    with pytest.raises(errors.InputError, match="ten ranks"):
        chess_board("9/9")


@pytest.mark.sweep("recipes of articles")
def test_reading_by_convolutions(tmp_path, monkeypatch, capsys):
    scores, said = smoke("dgcnn_reading", tmp_path, monkeypatch, capsys)
    assert 0 <= scores.exact_match <= scores.f1 <= 1 and "parameters" in said
    recipe = runpy.run_path(str(RECIPES / "dgcnn_reading.py"))
    scores = np.array([[0, 5, 1, 0], [9, 0, 0, 2.0]])
    assert recipe["answer"](scores, "甲乙丙丁", 2) == "甲" and recipe["answer"](scores[:, 1:], "乙丙丁", 3) == "乙丙丁"
    inputs = {name: np.arange(40).reshape(2, 20) for name in ("passage", "passage_words", "shared")}
    spans = np.array([[0, 3], [18, 19]])
    read, inside = recipe["pieces"](inputs, spans, 5, np.random.default_rng(0))
    assert all(part.shape == (2, 5) for part in read.values()) and read["passage"][0, 0] == 0
    np.testing.assert_array_equal(read["passage"][[0, 1], inside[:, 0]], [0, 38])
    assert (tmp_path / "run/model.keras").exists()


@pytest.mark.sweep("recipes of articles")
def test_triples_by_convolutions(tmp_path, monkeypatch, capsys):
    scores, said = smoke("dgcnn_triples", tmp_path, monkeypatch, capsys)
    assert 0 <= scores.f1 <= 1 and "epoch 1: loss" in said


def test_contexts():
    around, centre = contexts([["甲", "丙", "乙"], [], ["乙"]], ["(other)", "甲", "乙"], 1)
    assert around.tolist() == [[0, 0], [0, 0], [0, 0]] and centre.tolist() == [1, 2, 2]
    assert contexts([["甲", "乙", "甲"]], ["", "甲", "乙"], 1)[0].tolist() == [[0, 2], [1, 1], [2, 0]]


def test_half_pointers_as_arrays():
    row = {
        "text": "甲生于乙，丙也生于乙",
        "spo_list": [("甲", "生于", "乙"), ("丙", "生于", "乙"), ("丁", "生于", "乙")],
    }
    spans = spans_of(row, {"生于": 0}, 10)
    assert spans == {(0, 0): [(0, (3, 3))], (5, 5): [(0, (3, 3))]} and not spans_of(row, {"生于": 0}, 3)
    chosen, subjects, objects = labels_of([spans], 1, 10, np.random.default_rng(0))
    assert tuple(chosen[0]) in spans and subjects.sum() == 4 and objects[0, 3, 0].tolist() == [1, 1]
    assert subjects[0, [0, 5]].tolist() == [[1, 1], [1, 1]] and objects.sum() == 2
    assert pointed(np.eye(4)[:, :2]) == [(0, 1)] and pointed(0.45 * np.eye(4)[:, :2], 0.4, 0.5) == []
