"""Which column is the text and which the label: by what a user says, by their names, or by their places."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from bert4x.errors import DataError, nearest


def vocabulary(*lines: str) -> frozenset[str]:
    """The words of some lines."""
    return frozenset(word for line in lines for word in line.split())


# Words that names of columns are made of, in English and in Chinese.
TEXT = vocabulary(
    "text texts txt sentence sent content review comment query question title document doc passage context premise",
    "hypothesis body utterance message input tweet abstract paragraph article post news description keyword",
    "文本 句子 内容 评论 评价 正文 标题 问题 文章 语句 原文 文字 短文 新闻 摘要 段落 消息 微博 题目 前提 假设",
)
LABEL = vocabulary(
    "label labels class category target tag sentiment intent topic polarity score rating gold star stars type y",
    "relation similarity emotion",
    "标签 类别 分类 类型 情感 情绪 意图 主题 标注 话题 极性 评分 得分 类 标记",
)
SOURCE = TEXT | vocabulary("source src original en english zh chinese 源文 中文 英文 上联 上文 输入")
TARGET = vocabulary(
    "target tgt title summary headline answer reply response output translation en english zh chinese",
    "标题 摘要 目标 译文 回答 答案 回复 输出 中文 英文 下联 下文 题目",
)
QUESTION = vocabulary("question query 问题 提问")
PASSAGE = vocabulary("passage context text document paragraph content 文章 段落 正文 文本 原文")
SURE = vocabulary("label labels class category 标签 类别 分类")  # no class is called so
OTHER = vocabulary("id guid uid idx index no number date time user url split lang 序号 编号 日期 时间 用户 作者 来源")
LONGEST_NAME, LONGEST_CHINESE = 30, 6  # characters
FIRST, LAST = 1, -1  # columns by their place

Column = str | int


@dataclass(frozen=True)
class Wanted:
    """A column that a reader needs: what it is for, the words that its name may have, and what the user calls it."""

    use: str
    words: frozenset[str]
    given: Column | None = None

    @property
    def option(self) -> str:
        """How it is told on the command line."""
        return f"--{self.use.replace(' ', '-')}-column"


def words_of(name: str) -> list[str]:
    """The words of a column's name, in lower case, without numbers and letters: "text_a" -> text; "goldLabel" -> gold,
    label; "句子1" -> 句子.
    """
    name = re.sub(r"(?<=[a-z])(?=[A-Z])", "_", name.strip().lstrip("#"))
    words = [word.rstrip("0123456789") for word in re.split(r"[\s_\-.:/()（）]+", name.lower())]
    words = [word.rstrip("ab") if is_chinese(word) else word for word in words]
    return [word for word in words if len(word) > 1 or word == "y" or is_chinese(word)]


def is_chinese(word: str) -> bool:
    """Whether a word begins with a Chinese character."""
    return word[:1] >= "\u2e80"


def is_name(cell: str, known: frozenset[str]) -> bool:
    """Whether a cell reads like the name of a column: "review_body", where one word is known; "Review Text", where all
    are; "评论内容", which ends with one.
    """
    words = words_of(cell)
    if not words or len(cell) > LONGEST_NAME or len(words) > 3:
        return False
    hits = [word in known or (is_chinese(word) and ends_with_one(word, known)) for word in words]
    return all(hits) if " " in cell.strip() else any(hits)


def ends_with_one(word: str, known: frozenset[str]) -> bool:
    """Whether a short Chinese word ends with a known one."""
    return len(word) <= LONGEST_CHINESE and any(
        len(one) > 1 and is_chinese(one) and word.endswith(one) for one in known
    )


def is_header(first: Sequence[str], rest: Sequence[Sequence[str]], wanted: Sequence[Wanted]) -> bool:
    """Whether the first row names the columns: by words for what is wanted, or what the user calls them.

    Where only the texts, or only the label, have such a name, the label of the row must be none of the others; and a
    word over labels that are numbers is a name, whatever it says.
    """
    cells = [cell.strip() for cell in first]
    if any(isinstance(one.given, str) and not one.given.isdecimal() and one.given in cells for one in wanted):
        return True
    if len(cells) < len(wanted):
        return False
    if len(wanted) == 1:
        named = [cell for cell in cells if is_name(cell, wanted[0].words | LABEL | OTHER)]
        return any(is_name(cell, wanted[0].words) for cell in named) and all(cell in named for cell in cells if cell)
    named = count_named(cells, wanted)
    if named == len(wanted):
        return True
    if wanted[-1].words is not LABEL:
        return False
    place = place_of_label(wanted[-1].given, len(cells))
    below = [row[place].strip() for row in rest if len(row) == len(cells)]
    ours = cells[place]
    if len(below) < 2 or not ours or ours in below:
        return False
    texts_named = count_named(cells[:place] + cells[place + 1 :], wanted[:-1]) == len(wanted) - 1
    return texts_named or set(words_of(ours)) <= SURE or (all(map(is_number, below)) and not is_number(ours))


def count_named(cells: Sequence[str], wanted: Sequence[Wanted]) -> int:
    """How many of the columns that are wanted find a cell of their own that is a name for them."""
    free, count = list(cells), 0
    for one in sorted(wanted, key=lambda one: len(one.words)):
        match = next((cell for cell in free if is_name(cell, one.words)), None)
        if match is not None:
            free.remove(match)
            count += 1
    return count


def place_of_label(given: Column | None, size: int) -> int:
    """The column of the label by its place: the last, unless the user says another."""
    if isinstance(given, int) or (isinstance(given, str) and given.isdecimal()):
        return min(int(given) - 1, size - 1) if int(given) > 0 else size - 1
    return size - 1


def is_number(text: str) -> bool:
    """Whether a text is a number."""
    try:
        float(text)
    except ValueError:
        return False
    return True


def choose(where: str, names: Sequence[str] | None, size: int, wanted: Sequence[Wanted], by_place: bool) -> list[int]:
    """The number of the column for each that is wanted.

    What the user says comes first, then names, then, with `by_place`, places: the label last and the texts before it.
    Raises: DataError where that does not decide.
    """
    chosen: dict[int, int] = {}
    for i, one in enumerate(wanted):
        if one.given is not None:
            chosen[i] = find(where, names, size, one)
    if names is not None:
        by_name(where, names, wanted, chosen, by_place)
    missing = [i for i in range(len(wanted)) if i not in chosen]
    free = [column for column in range(size) if column not in chosen.values()]
    if missing and by_place:
        if len(free) < len(missing):
            raise DataError(f"{where}: {size} columns; expected {len(wanted)}, for {', '.join(w.use for w in wanted)}")
        if wanted[-1].words not in (LABEL, TARGET) and len(free) > len(missing) + 1:
            one = wanted[missing[0]]
            raise DataError(f"{where}: which of {size} columns is the {one.use}? say {one.option}, by number from 1")
        chosen |= dict(zip(missing, next_to_label(free, missing, chosen, wanted), strict=True))
    elif missing and names is not None and len(free) == len(missing) == 1:
        chosen[missing[0]] = free[0]
    elif missing:
        one = wanted[missing[0]]
        raise DataError(
            f"{where}: which column is the {one.use}? found {', '.join(names or [])}; say {one.option} NAME"
        )
    return [chosen[i] for i in range(len(wanted))]


def next_to_label(free: list[int], missing: list[int], chosen: dict[int, int], wanted: Sequence[Wanted]) -> list[int]:
    """Of more columns than are needed the last ones; where the label is chosen and stands before them, or none is
    wanted, the first.
    """
    label = chosen.get(len(wanted) - 1)
    before = wanted[-1].words not in (LABEL, TARGET) or (label is not None and all(column > label for column in free))
    return free[: len(missing)] if before else free[-len(missing) :]


def by_name(where, names: Sequence[str], wanted: Sequence[Wanted], chosen: dict[int, int], by_place: bool) -> None:
    """Adds to `chosen` what the names of columns decide.

    Raises: DataError where several fit; not with `by_place`, where there are no other columns than those wanted.
    """
    for words in dict.fromkeys(one.words for one in reversed(wanted)):
        asked = [i for i, one in enumerate(wanted) if one.words == words and i not in chosen]
        fits = [c for c, name in enumerate(names) if c not in chosen.values() and is_name(name, words)]
        exact = [c for c in fits if all(word in words for word in words_of(names[c]))]
        fits = exact if len(exact) == len(asked) else fits
        if len(fits) == len(asked):
            if len({tuple(words_of(names[c])) for c in fits}) == 1:
                fits = sorted(fits, key=lambda c: names[c])  # sentence1 before sentence2, wherever they stand
            chosen.update(zip(asked, fits, strict=True))
        elif len(fits) > len(asked) > 0 and not (by_place and len(names) == len(wanted)):
            one = wanted[asked[0]]
            found = ", ".join(repr(names[c]) for c in fits)
            raise DataError(f"{where}: {found} could each be the {one.use}; say which with {one.option} NAME")


def find(where: str, names: Sequence[str] | None, size: int, one: Wanted) -> int:
    """The column that a user names, or counts from 1. Raises: DataError."""
    given = one.given
    if names is not None and given in names:
        if names.count(given) > 1:
            raise DataError(f"{where}: {names.count(given)} columns are called {given!r}; say the number, from 1")
        return list(names).index(given)
    if given == LAST:
        return size - 1
    if isinstance(given, int) or given.isdecimal():
        if 1 <= int(given) <= size:
            return int(given) - 1
        raise DataError(f"{where}: no column {given}; expected 1 to {size}")
    if names is None:
        raise DataError(
            f"{where}: no column {given!r}, for the first line names none; say its number from 1, or --header"
        )
    raise DataError(f"{where}: no column {given!r}; {nearest(given, names)}")
