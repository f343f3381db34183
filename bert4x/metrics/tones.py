"""Tones of regulated verse; they are looked up by pypinyin (`pip install pypinyin`)."""

from collections.abc import Sequence


def couplet_tones(couplets: Sequence[str]) -> tuple[float, float] | None:
    """Of couplets of two lines of five characters, as ten: the share whose tones, even and uneven, are opposite at the
    second and fourth places of the lines; and the share with an even tone at the end. None without pypinyin.
    """
    try:
        from pypinyin import Style, lazy_pinyin
    except ImportError:
        return None
    even = [[s[-1] in "12" for s in lazy_pinyin(list(couplet), style=Style.TONE3)] for couplet in couplets]
    opposite = sum(row[1] != row[6] and row[3] != row[8] for row in even)
    return opposite / len(even), sum(row[9] for row in even) / len(even)
