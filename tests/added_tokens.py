"""Folders with 50 added tokens of all kinds, lines that are hard for them, and the ids that transformers 5.24 gives.

`python tests/added_tokens.py` writes the ids anew (it needs transformers).
"""

import itertools
import json
import random
from pathlib import Path

GOLDEN = Path(__file__).parent / "golden" / "added_tokens.json"
VOCAB = [
    *("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"),
    *"的一是不了在人有我他这为之大来以个中上们今天气很好爱你国，。！？[]<>/-#_@.",
    *"abcdefghijklmnopqrstuvwxyz0123456789éÉ",
    *(f"##{char}" for char in "abcdefghijklmnopqrstuvwxyz0123456789éÉ"),
    *("hello", "cafe", "café", "chat", "##gp", "York", "york", "new", "foo", "##bar"),
]
TOKENS = [  # overlapping, nested, with spaces, Chinese, special characters, accents, capitals, prefixes of each other
    *("[E1]", "[/E1]", "[E2]", "[E]", "E1", "<e>", "</e>", "<E>", "[E1][E2]", "[unused1]"),
    *("ChatGPT", "GPT-4", "GPT", "CHAT", "Chat", "New York", "New York City", "York City", " leading", "trailing "),
    *("我爱", "我爱你", "爱你", "中国", "国人", "今天 天气", "好，", "。。", "，", "大"),
    *("Café", "naïve", "É", "Ünï", "İ", "Σας", "Straße", "😀", "👍🏽", "が"),
    *("##ing", "@@", "--", "foo", "foo_bar", "3.14", "20", "http://", "a", "\u3000"),
]
FORMS = ("decoder", "legacy", "json")


def flags(number: int) -> dict[str, bool]:
    """Every combination of flags comes up: 32 of them over 50 tokens."""
    names = ("normalized", "single_word", "lstrip", "rstrip", "special")
    return {name: bool((number * 7 + 3) >> place & 1) for place, name in enumerate(names)}


def added_tokens(form: str) -> list[dict]:
    """The added tokens with their ids, five of them ids of the vocabulary. added_tokens.json has new ones only, and
    knows no flags; of two that are then equal in lower case transformers finds any one, so it has no such pair.
    """
    new = itertools.count(len(VOCAB))
    ids = [VOCAB.index(content) if content in VOCAB else next(new) for content in TOKENS]
    tokens = [{"id": i, "content": content} | flags(n) for n, (i, content) in enumerate(zip(ids, TOKENS, strict=True))]
    if form == "legacy":
        plain = {"normalized": True, "single_word": False, "lstrip": False, "rstrip": False, "special": False}
        kept = [t for t in tokens if t["id"] >= len(VOCAB) and t["content"] not in ("<E>", "Chat")]
        tokens = [t | plain | {"id": i} for i, t in enumerate(kept, start=len(VOCAB))]
    return tokens


def write_folder(folder: Path, form: str, lower: bool) -> Path:
    """A folder as transformers' versions write it: `added_tokens_decoder`, added_tokens.json, or tokenizer.json."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"tokenizer_class": "BertTokenizer", "do_lower_case": lower}
    tokens = added_tokens(form)
    if form == "decoder":
        config["added_tokens_decoder"] = {str(t["id"]): {k: t[k] for k in t if k != "id"} for t in tokens}
    elif form == "legacy":
        dump(folder / "added_tokens.json", {token["content"]: token["id"] for token in tokens})
        config["additional_special_tokens"] = ["[E1]", "ChatGPT"]
    else:
        dump(folder / "tokenizer.json", tokenizer_json(tokens, lower))
    if form != "json":
        (folder / "vocab.txt").write_text("".join(f"{token}\n" for token in VOCAB), encoding="utf-8")
    dump(folder / "tokenizer_config.json", config)
    dump(folder / "config.json", {"model_type": "bert"})
    return folder


def tokenizer_json(tokens: list[dict], lower: bool) -> dict:
    """Hugging Face's own file."""
    named = [{"id": n, "content": VOCAB[n], "special": True, "normalized": False} for n in range(5)]
    plain = {"single_word": False, "lstrip": False, "rstrip": False}
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [*(plain | token for token in named), *tokens],
        "normalizer": {
            "type": "BertNormalizer",
            "clean_text": True,
            "handle_chinese_chars": True,
            "strip_accents": None,
            "lowercase": not lower,  # tokenizer_config.json says otherwise, and it counts
        },
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": None,
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {
            "type": "WordPiece",
            "unk_token": "[UNK]",
            "continuing_subword_prefix": "##",
            "max_input_chars_per_word": 100,
            "vocab": {token: number for number, token in enumerate(VOCAB)},
        },
    }


def dump(path: Path, data) -> None:
    path.write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")


def lines() -> list[str]:
    """Every token in several surroundings, then mixtures."""
    found = []
    for token in TOKENS:
        found += [token, token.upper(), token.lower(), f"我{token}好", f"x{token}y", f"x {token}  y", f"{token}{token}"]
    rng = random.Random(0)
    parts = [
        *TOKENS,
        *"我爱你中国今天 好，。",
        " ",
        "  ",
        "x",
        "hello",
        "[MASK]",
        "\u200b",
        "e\u0301",
        "\n",
        "CAFÉ",
        "g",
    ]
    found += ["".join(rng.choices(parts, k=rng.randint(2, 9))) for _ in range(250)]
    return found


def settings() -> list[tuple[str, bool]]:
    return list(itertools.product(FORMS, (True, False)))


def main() -> None:
    import tempfile

    from transformers import AutoTokenizer

    golden = {}
    for form, lower in settings():
        with tempfile.TemporaryDirectory() as folder:
            tokenizer = AutoTokenizer.from_pretrained(write_folder(Path(folder), form, lower))
        special = sorted(n for n, token in tokenizer.added_tokens_decoder.items() if token.special)
        golden[f"{form}-{lower}"] = {"ids": tokenizer(lines())["input_ids"], "special": special}
    GOLDEN.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


if __name__ == "__main__":
    main()
