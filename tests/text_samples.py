"""Text and a vocabulary made from nothing, for the tests and benchmark of the tokenizers."""

import random

SPECIALS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
WORDS = [
    "the",
    "model",
    "BERT",
    "GPT2",
    "Hello",
    "İstanbul",
    "ΑΣ",
    "ΌΔΟΣ",
    "straße",
    "ﬁne",
    "naïve",
    "3.14",
    "2024",
    "x²",
]
FRAGMENTS = [
    *SPECIALS, "[mask]", "[ MASK ]", "[MASK", "MASK]", "[[MASK]]", "[CLS][SEP]", "[unused1]", "##", "##a",
    "a##b", "##的", "\ufeff", "\u200b", "\u200d", "\u200e", "\u00ad", "\ufe0f", "\u20e3", "e\u0301",
    "a\u0323\u0307", "\u0301", "中\u0301", ",\u0301", "\u302e\u302f", "か\u3099", "が", "\x00", "\x07",
    "\x1b[0m", "\x7f", "\x85", "\ufffd", "\ufffe", "\uffff", "\U000f0000", "\ue000", "\t", "\n", "\r\n", "\x0b",
    "\x0c", "\x1c", "\xa0", "\u1680", "\u2002", "\u2028", "\u2029", "\u202f", "\u205f", "\u3000", "  ", "😀",
    "👩‍👩‍👧", "👍🏽", "🇨🇳", "❤️", "ﷺ", "ﬃ", "Ǆ", "ǅ", "Σ", "ς", "'Σ", "Σ.", "İ", "ı", "ẞ", "K", "Å", "ͅ",
    "\u0345", "한국어", "\u1112\u1161\u11ab", "ภาษาไทย", "กำ", "العربية", "مُحَمَّد", "हिन्दी", "தமிழ்",
    "Ελληνικά", "Русский", "ёж", "日本語", "カタカナ", "ｶﾞ", "ＡＢＣ１２３", "，。！？；：", "（）［］｛｝",
    "“”‘’", "《》〈〉【】", "——……", "·•", "～＋＝", "￥$€£", "①②⑩", "ⅧⅨ", "㎏㈱", "〇々〆", "豈", "﨑", "㐀",
    "䶿", "龥", "鿿", "𠀀", "𪛟", "𪜀", "𫝀", "𫠠", "𬺰", "𰀀", "丽", "⼀", "⺀", "\u037e", "\u0387", "\u1fef",
    "\u2000", "\u2126", "\u212a", "-", "_", "@", "#", "http://a.b/c?d=e&f", "C:\\x", "1,234.5%", "a.b@c.cn",
]  # fmt: skip
BLOCKS = [
    (0, 0x7F), (0, 0x2FF), (0x300, 0x36F), (0x370, 0x5FF), (0x600, 0x6FF), (0x900, 0xFFF), (0x1100, 0x11FF),
    (0x1E00, 0x1FFF), (0x2000, 0x206F), (0x2070, 0x2BFF), (0x2E80, 0x303F), (0x3040, 0x33FF), (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF), (0xA000, 0xA6FF), (0xAC00, 0xD7A3), (0xE000, 0xF8FF), (0xF900, 0xFAFF), (0xFB00, 0xFEFF),
    (0xFF00, 0xFFFF), (0x10000, 0x103FF), (0x1D000, 0x1D7FF), (0x1F000, 0x1FAFF), (0x20000, 0x2A6DF),
    (0x2A700, 0x2EBEF), (0x2F800, 0x2FA1F), (0x30000, 0x323AF), (0xE0000, 0xE01EF), (0xF0000, 0x10FFFF),
]  # fmt: skip


def chinese_sentences(count: int, seed: int = 0) -> list[str]:
    """Made-up sentences of ordinary shape: 15 to 80 characters, punctuation, now and then a number or a Latin word."""
    rng = random.Random(seed)
    common = [chr(code) for code in range(0x4E00, 0x9FA5, 7)]
    weights = [1 / rank for rank in range(1, len(common) + 1)]
    sentences = []
    for _ in range(count):
        chars = rng.choices(common, weights, k=rng.randint(15, 80))
        for place in rng.sample(range(1, len(chars)), len(chars) // 12):
            chars[place] = rng.choice("，，，。！？、：；（）“”《》,.")
        if rng.random() < 0.3:
            chars.insert(
                rng.randrange(len(chars)), rng.choice(["2024", "3.5", "iPhone", "OK", "WiFi", "100%", "～～", " "])
            )
        sentences.append("".join(chars) + "。")
    return sentences


def hostile_lines(count: int, seed: int = 0) -> list[str]:
    """Random mixtures of scripts, marks, controls, spaces, special tokens and very long words; no lone surrogates."""
    rng = random.Random(seed)
    lines = []
    for _ in range(count):
        parts = []
        for _ in range(rng.randint(0, 12)):
            kind = rng.random()
            if kind < 0.45:
                parts.append(rng.choice(FRAGMENTS))
            elif kind < 0.6:
                parts.append(rng.choice(WORDS))
            elif kind < 0.75:
                parts += [chr(rng.randint(0x4E00, 0x9FFF)) for _ in range(rng.randint(1, 8))]
            elif kind < 0.98:
                first, last = rng.choice(BLOCKS)
                parts += [chr(rng.randint(first, last)) for _ in range(rng.randint(1, 5))]
            else:
                parts.append(rng.choice("aé1中Σ가") * rng.randint(95, 210))
            if rng.random() < 0.2:
                parts.append(" ")
        lines.append("".join(parts))
    return lines


def made_vocab() -> list[str]:
    """A vocabulary of Chinese BERT's size and composition."""
    chars = [chr(code) for code in range(0x4E00, 0x9FA6, 3)] + list("，。！？、：；（）“”《》～…·")
    ascii_chars = [chr(code) for code in range(0x21, 0x7F) if not chr(code).isupper()]
    pairs = [a + b for a in "abcdefghijklmnopqrstuvwxyz0123456789" for b in "abcdefghijklmnopqrstuvwxyz0123456789"]
    tokens = [*SPECIALS, *ascii_chars, *chars, *pairs]
    return [*tokens, *(f"##{token}" for token in tokens[len(SPECIALS) :])]
