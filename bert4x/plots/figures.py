"""What all pictures share: matplotlib's figures without a window, fonts with Chinese characters, writing a file."""

import contextlib
import os
import warnings

from bert4x.errors import Bert4xError

CJK_FONTS = (
    *("Noto Sans CJK SC", "Noto Sans SC", "Source Han Sans SC", "Source Han Sans CN", "WenQuanYi Micro Hei"),
    *("WenQuanYi Zen Hei", "PingFang SC", "Hiragino Sans GB", "Heiti SC", "Microsoft YaHei", "SimHei", "SimSun"),
    *("Droid Sans Fallback", "AR PL UMing CN", "AR PL UKai CN", "Arial Unicode MS", "Unifont"),
)
INSTALL = (
    "install one: the package fonts-noto-cjk (Debian, Ubuntu), google-noto-sans-cjk-fonts (Fedora), "
    "noto-fonts-cjk (Arch)"
)


class MissingMatplotlibError(Bert4xError, ImportError):
    """Pictures need matplotlib, which is not installed."""


def matplotlib_figure(text: str = ""):
    """The class of figures, with a canvas of its own and no window, and a font with Chinese characters or None. There
    is a warning when there are some in the text, which is all that will be drawn, and in no font.

    Raises: MissingMatplotlibError
    """
    try:
        from matplotlib import font_manager
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingMatplotlibError("pictures need matplotlib: pip install matplotlib") from error
    font = chinese_font(font_manager.fontManager)
    if font is None and is_chinese(text):  # one may have been installed since matplotlib made its list
        known = {entry.fname for entry in font_manager.fontManager.ttflist}
        for file in set(font_manager.findSystemFonts()) - known:
            with contextlib.suppress(RuntimeError, OSError):  # a format that matplotlib cannot read
                font_manager.fontManager.addfont(file)
        font = chinese_font(font_manager.fontManager)
        if font is None:
            warnings.warn(
                f"matplotlib finds no font with Chinese characters, they are drawn as boxes; {INSTALL}",
                stacklevel=3,
            )
    return Figure, font


def is_chinese(text: str) -> bool:
    """Whether a text has characters that only Chinese fonts have: ideographs, and the punctuation among them."""
    return any(
        "\u2e80" <= c <= "\u9fff"
        or "\uf900" <= c <= "\ufaff"
        or "\uff00" <= c <= "\uffef"
        or "\U00020000" <= c <= "\U0003ffff"
        for c in text
    )


@contextlib.contextmanager
def picture(path: str | os.PathLike, columns: int = 1, text: str = ""):
    """Axes side by side, to draw on; the file is written at the end of the block. `text` is all that will be written on
    them, where that may be Chinese.

    Raises: MissingMatplotlibError
    """
    figure_class, font = matplotlib_figure(text)
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    figure = figure_class(figsize=(5.4 * columns, 4), layout="constrained")
    axes = figure.subplots(1, columns, squeeze=False)[0]
    yield list(axes)
    for axis in axes:
        axis.spines[["top", "right"]].set_visible(False)
        if is_chinese(text):
            for item in (axis.title, *axis.texts, *axis.get_xticklabels(), *axis.get_yticklabels()):
                item.set_family(families(font))
    save(figure, path, dpi=140)


@contextlib.contextmanager
def optional():
    """Says that there is no picture where matplotlib is missing, and goes on after the block:
    `with optional(), picture(path) as axes: ...`.
    """
    try:
        yield
    except MissingMatplotlibError as error:
        print(f"no picture: {error}")


def save(figure, path: str | os.PathLike | None, dpi: int) -> None:
    """Writes a figure, unless there is no path; what is drawn as a box has been said once."""
    if path is not None:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Glyph .* missing from")
            figure.savefig(path, dpi=dpi)


def chinese_font(manager) -> str | None:
    """The name of an installed font with Chinese characters."""
    installed = {entry.name for entry in manager.ttflist}
    return next((name for name in CJK_FONTS if name in installed), None)


def families(font: str | None) -> list[str]:
    """Fonts to look for characters in, in this order."""
    return [font, "DejaVu Sans"] if font else ["DejaVu Sans"]
