"""Help and cards in Chinese, where the locale is."""

import argparse
import json
import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from bert4x import chinese, cli
from bert4x.cli import predict
from bert4x.recipe import arguments, running
from bert4x.training import report

VARIABLES = ("LC_ALL", "LC_MESSAGES", "LANG")


@pytest.fixture
def locale(monkeypatch):
    """Sets the variables of the locale, and no others."""

    def put(**variables):
        for name in VARIABLES:
            monkeypatch.delenv(name, raising=False)
        for name, value in variables.items():
            monkeypatch.setenv(name, value)

    put()
    return put


def texts_of(parser):
    """Every text that the help of a parser and of its commands shows."""
    yield parser.description
    yield from (group.title for group in parser._action_groups)
    for action in parser._actions:
        yield action.help
        if isinstance(action, argparse._SubParsersAction):
            yield from (summary.help for summary in action._choices_actions)
            for sub in action.choices.values():
                yield from texts_of(sub)


def test_every_help_string_has_a_translation(locale):
    english = [text for text in texts_of(cli.parser()) if text]
    assert len(english) > 100
    assert sorted({text for text in english if chinese.translated(text) == text}) == []
    locale(LANG="zh_CN.UTF-8")
    assert [text for text in texts_of(cli.parser()) if text] == [chinese.translated(text) for text in english]


def test_lines_of_runs(locale):
    """They are those that the package prints, and keep their places."""
    files = [Path(module.__file__).read_text("utf-8") for module in (running, arguments, report, predict)]
    source = "".join(files)
    for english, translation in chinese.LINES.items():
        assert json.dumps(english.partition(". Best weights")[0], ensure_ascii=False)[1:-1] in source
        assert sorted(re.findall(r"{\S*?}|\n", english)) == sorted(re.findall(r"{\S*?}|\n", translation))
    values = {"updates": 40, "seconds": 34.4, "scores": "f1 0.5", "best_epoch": 3}
    said = "{updates} updates in {seconds:.0f} s. Best weights, after epoch {best_epoch:g}: {scores}"
    assert chinese.line(said, **values) == "40 updates in 34 s. Best weights, after epoch 3: f1 0.5"
    locale(LANG="zh_CN.UTF-8")
    assert chinese.line(said, **values) == "40 次更新，34 秒。最好的权重在第 3 轮：f1 0.5"
    assert chinese.line("{a} of no table", a=1) == "1 of no table"


def test_translations_keep_what_is_filled_in():
    """Names of options' values, and what argparse fills in."""
    for english, translation in chinese.HELP.items():
        assert re.findall(r"%\(\w+\)s|\\n", english) == re.findall(r"%\(\w+\)s|\\n", translation)
        assert re.search("[\u4e00-\u9fff]", translation), english


def test_which_locales(locale):
    for variables, wanted in [
        ({}, False),
        ({"LANG": "zh_CN.UTF-8"}, True),
        ({"LANG": "zh_CN.UTF-8", "LC_ALL": "C.UTF-8"}, False),
        ({"LANG": "en_US.UTF-8", "LC_MESSAGES": "zh_TW"}, True),
        ({"LC_ALL": "", "LANG": "zh"}, True),
    ]:
        locale(**variables)
        assert chinese.is_wanted() is wanted, variables


def test_help_keeps_to_the_width_of_the_terminal(locale, command, monkeypatch):
    locale(LC_ALL="zh_CN.UTF-8")
    monkeypatch.setenv("COLUMNS", "80")
    status, out, _ = command("generate", "--help")
    assert status == 0
    assert "最多写几个 token（默认：64）" in out
    assert max(map(chinese.columns, out.splitlines())) <= 80
    locale()
    assert "最多" not in command("generate", "--help")[1]


def test_cards(locale):
    args = SimpleNamespace(model=None, epochs=3, command="python recipes/text_classification.py")
    task = SimpleNamespace(name="text-classification")
    done = SimpleNamespace(scores={"accuracy": 0.25}, best_epoch=2.5, folder="runs/x", updates=40, seconds=34.4)
    english = report.card(task, done, args, 9, 4)
    assert "On 4 rows, after epoch 2.5 of 3; trained on 9 examples, 40 updates, 34 s" in english
    locale(LANG="zh_CN.UTF-8")
    card = report.card(task, done, args, 9, 4)
    assert (
        "在 4 行上评测，取第 2.5 轮（共 3 轮）；用 9 个样本训练，40 次更新，34 秒，起点是 bert4x 自带的小模型。" in card
    )
    assert "| accuracy | 0.25 |" in card and args.command in card
    done.best_epoch, args.model = None, "bert"
    assert "在 4 行上评测；用 9 个样本训练" in report.card(task, done, args, 9, 4)
    assert report.TRIAL not in english and chinese.TRIAL not in card
    args.smoke = True
    assert chinese.TRIAL in report.card(task, done, args, 9, 4)
    locale()
    assert report.TRIAL in report.card(task, done, args, 9, 4)
