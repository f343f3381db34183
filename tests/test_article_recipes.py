"""Recipes of articles: games, convolutions that read, F1 as a loss; their smoke runs, and what they compute."""

import runpy

import numpy as np
import pytest
from test_article_parts import RECIPES, smoke

from bert4x import errors


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
    recipe = runpy.run_path(str(RECIPES / "chinese_chess.py"))
    board = cchess.ChessBoard(cchess.FULL_INIT_FEN)
    assert len(recipe["legal"](board)) == 44 and board.to_fen() == cchess.FULL_INIT_FEN
    pinned = cchess.ChessBoard("3k5/9/9/9/9/9/9/3R5/9/3K5 w")  # without the rook, the kings would face each other
    assert {move[2] for move in recipe["legal"](pinned) if move.startswith("d2")} == {"d"}
    games = [["h2e2", "h9g7"], ["h2e2"]]
    inputs, targets = recipe["as_batch"](games, 3)
    ids = recipe["IDS"]
    assert inputs["token_ids"].tolist() == [[1, ids["h2e2"], ids["h9g7"]], [1, ids["h2e2"], 0]]
    assert targets.tolist() == [[ids["h2e2"], ids["h9g7"], -1], [ids["h2e2"], -1, -1]]
    assert recipe["mirrored"](games[0]) == ["b2e2", "b9c7"]


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
    assert (tmp_path / "run/model.keras").exists()


@pytest.mark.sweep("recipes of articles")
def test_triples_by_convolutions(tmp_path, monkeypatch, capsys):
    scores, said = smoke("dgcnn_triples", tmp_path, monkeypatch, capsys)
    assert 0 <= scores.f1 <= 1 and "epoch 1: loss" in said
    recipe = runpy.run_path(str(RECIPES / "dgcnn_triples.py"))
    row = {
        "text": "甲生于乙，丙也生于乙",
        "spo_list": [("甲", "生于", "乙"), ("丙", "生于", "乙"), ("丁", "生于", "乙")],
    }
    spans = recipe["spans_of"](row, {"生于": 0}, 10)
    assert spans == {(0, 0): [(0, 3, 3)], (5, 5): [(0, 3, 3)]}
    chosen, subjects, objects = recipe["targets"]([spans], ["生于"], 10, np.random.default_rng(0))
    assert tuple(chosen[0]) in spans and subjects.sum() == 4 and objects[0, 3, 0].tolist() == [1, 1]
    assert recipe["pairs"](np.eye(4)[:, :2]) == [(0, 1)]
