"""Writes families.md and families.zh.md, what can be done with each family: `python docs/families.py`."""

import re
import sys
from pathlib import Path

DOCS = Path(__file__).parent
ROOT = DOCS.parent
sys.path.insert(0, str(ROOT))
TESTS = ROOT / "tests"
YES = {True: "✓", False: ""}
WORDS = {
    ".md": {
        "title": "Families",
        "intro": """`bert4x models --built` prints this table; this page is written by `python docs/families.py` from
the classes of the families, their tables of layouts, and the tests.

*Decodes* are the applications that write text (see [Loading](loading.md#applications)); *heads* the heads of tasks
that a layout has room for; *compared with* what computes its outputs independently in the tests: a model in NumPy
(`tests/reference`), bert4keras itself, `transformers`. `bert4x` and `keras`, our own formats, hold every family and
every head.""",
        "columns": ("family", "layout", "reads", "writes", "decodes", "heads", "compared with"),
        "catalogue": "The catalogue",
        "counts": """Published checkpoints that `bert4x models` lists, by family. Those of families, or layouts, that
this version does not load are planned.""",
        "counted": ("family", "checkpoints", "planned"),
    },
    ".zh.md": {
        "title": "模型家族",
        "intro": (
            "`bert4x models --built` 打印这张表；本页由 `python docs/families.py` 根据家族的类、"
            "各布局的对应表和测试写成。\n\n"
            "“生成”是能写出文本的应用（见[加载](loading.zh.md)）；“任务头”是该布局容得下的任务头；"
            "“对照”是测试中独立计算其输出的程序：NumPy 写的模型（`tests/reference`）、bert4keras 本身、"
            "`transformers`。我们自己的格式 `bert4x` 和 `keras` 能存放所有家族和所有任务头。"
        ),
        "columns": ("家族", "布局", "读", "写", "生成", "任务头", "对照"),
        "catalogue": "目录",
        "counts": "`bert4x models` 列出的已发布检查点，按家族计；本版本还不能加载的家族或布局计入“计划中”。",
        "counted": ("家族", "检查点", "计划中"),
    },
}


def goldens(family: str, cls, families) -> list[str]:
    """What the tests compare a family's outputs with."""
    pattern = rf'^    (model = "{family}"$|testing\.check_family\("{family}", oracle\b)'
    found = ["NumPy"] if any(re.search(pattern, path.read_text("utf-8"), re.M) for path in TESTS.glob("*.py")) else []
    found += ["bert4keras"] if (TESTS / "golden" / "bert4keras" / f"{family}.json").exists() else []
    return [*found, *(["transformers"] if in_transformers(family, cls, families) else [])]


def in_transformers(family: str, cls, families) -> bool:
    """Whether a test compares with transformers' class of a family, which the config files of the family name."""
    labels = [labels_of(other) for other in families.values() if other is not cls]
    if not (own := labels_of(cls)) or any(other and other.items() < own.items() for other in labels):
        return False  # a variation that goes by the name of another family, and is not there
    prefix = re.split(r"For[A-Z]|Model$|LMHead|DoubleHeads", own["architectures"][0])[0]
    texts = [path.read_text("utf-8") for path in sorted(TESTS.glob("*.py"))]
    texts = [text for text in texts if re.search(r'(from|import|importorskip\(")\s*transformers\b', text)]
    by_kind = any("AutoConfig.for_model" in text and re.search(rf'^    "{family}": \{{', text, re.M) for text in texts)
    return by_kind or any(re.search(rf"\b{prefix}(For[A-Z]|Model\b|LMHead)", text) for text in texts)


def labels_of(cls) -> dict:
    """What the config files of a family in transformers' form always say, where they name a class."""
    labels = cls.styles["hf"].labels if "hf" in cls.styles else {}
    return labels if labels.get("architectures") else {}


def table(header, rows) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def page(suffix: str) -> str:
    """The whole page in a language, by the ending of its name."""
    from bert4x.checkpoints.abilities import abilities
    from bert4x.families import families
    from bert4x.hub.catalogue import catalogue

    words, known = (
        WORDS[suffix],
        {name: cls for name, cls in families().items() if cls.__module__.startswith("bert4x.")},
    )
    rows = [
        (
            one.family, one.layout, YES[one.reads], YES[one.writes], ", ".join(one.decodes), ", ".join(one.heads),
            ", ".join(goldens(one.family, known[one.family], known)),
        )
        for one in abilities()
        if one.family in known
    ]  # fmt: skip
    counts: dict[str, list[int]] = {}
    for entry in catalogue().values():
        count = counts.setdefault(entry.family, [0, 0])
        count[0] += 1
        count[1] += not entry.built
    listed = [(family, total, planned or "") for family, (total, planned) in sorted(counts.items())]
    parts = [
        f"# {words['title']}", words["intro"], table(words["columns"], rows),
        f"## {words['catalogue']}", words["counts"], table(words["counted"], listed),
    ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


if __name__ == "__main__":
    for suffix in WORDS:
        (DOCS / f"families{suffix}").write_text(page(suffix), encoding="utf-8")
