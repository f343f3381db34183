"""The names by which scripts for bert4keras reach into its `Tokenizer`."""

import unicodedata

from .vocab import is_cjk, is_punctuation, is_redundant, stem

# Punctuation of Chinese text, as bert4keras lists it.
CJK_PUNCTUATION = (
    *((0xFF02, 0xFF0D), (0xFF0F, 0xFF0F), (0xFF1A, 0xFF1E), (0xFF20, 0xFF20), (0xFF3B, 0xFF40), (0xFF5B, 0xFF60)),
    *((0xFF62, 0xFF64), (0x3000, 0x3001), (0x3003, 0x3003), (0x3008, 0x3011), (0x3014, 0x301F), (0x3030, 0x3030)),
    *((0x303E, 0x303F), (0x2013, 0x2014), (0x2018, 0x2019), (0x201B, 0x201F), (0x2026, 0x2027), (0xFE4F, 0xFE4F)),
    *((0xFE51, 0xFE51), (0xFE54, 0xFE54), (0xB7, 0xB7), (0xFF01, 0xFF01), (0xFF1F, 0xFF1F), (0xFF61, 0xFF61)),
    (0x3002, 0x3002),
)


def special_id(name: str) -> property:
    """An id under bert4keras' name, which scripts also set: `_token_pad_id` is `pad_id`."""
    return property(lambda self: getattr(self, name), lambda self, value: setattr(self, name, value))


class ScriptNames:
    """Attributes and functions of one character or token that bert4keras' `Tokenizer` has."""

    stem = staticmethod(stem)
    _is_punctuation = staticmethod(is_punctuation)
    _is_cjk_character = staticmethod(is_cjk)
    _is_redundant = staticmethod(is_redundant)

    _token_pad, _token_unk, _token_mask = (
        property(lambda self, name=name: self.names[name]) for name in ("pad", "unk", "mask")
    )

    @property
    def _token_dict(self) -> dict[str, int]:
        return self.token_dict

    @property
    def _token_dict_inv(self) -> dict[int, str]:
        return self._tokens_by_id

    @property
    def _do_lower_case(self) -> bool:
        return self.do_lower_case

    @property
    def _word_maxlen(self) -> int:
        return self.word_maxlen

    @staticmethod
    def _is_space(ch: str) -> bool:
        return ch in " \n\r\t" or unicodedata.category(ch) == "Zs"

    @staticmethod
    def _is_control(ch: str) -> bool:
        return unicodedata.category(ch) in ("Cc", "Cf")

    @staticmethod
    def _is_special(token: str) -> bool:
        return token.startswith("[") and token.endswith("]")

    @staticmethod
    def _cjk_punctuation() -> str:
        return "".join(chr(code) for first, last in CJK_PUNCTUATION for code in range(first, last + 1))
