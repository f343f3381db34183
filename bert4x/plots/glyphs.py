"""Images of single characters, from a font that is installed: a data set that is made where it is needed."""

import contextlib
import os

import numpy as np

from bert4x.errors import ConfigError
from bert4x.plots.figures import CJK_FONTS, INSTALL, MissingMatplotlibError

LATIN = "".join(chr(i) for i in range(0x41, 0x250) if chr(i).isalpha())  # with and without accents: 453


def chinese_characters() -> str:
    """The 3755 characters of GB 2312's first level, the commonest, by their sound."""
    rows, columns = range(0xB0, 0xD8), range(0xA1, 0xFF)
    return b"".join(bytes([row, column]) for row in rows for column in columns).decode("gb2312", "ignore")


def glyphs(characters: str, size: int = 28, font: str | os.PathLike | None = None) -> np.ndarray:
    """Each character as an image, of 0 where there is none of it, up to 1. All have one size of type and one baseline,
    such that together they fill the square.

    Args:
        size: pixels of a side.
        font: a file, or the name of an installed font; by default one with Chinese characters.

    Shape: -> (N, size, size) float32
    Raises: ConfigError where there is no such font, or characters are not in it; MissingMatplotlibError.
    """
    face = opened(font)
    check_characters(characters, face, font)
    boxes = np.array([face.getbbox(c, anchor="ls") for c in characters]) / face.size
    box = np.concatenate([boxes[:, :2].min(0), boxes[:, 2:].max(0)])  # left, top, right, bottom of all together
    type_size = int(size / max(box[2:] - box[:2]))
    face = face.font_variant(size=type_size)
    place = (size - type_size * (box[:2] + box[2:])) / 2
    from PIL import Image, ImageDraw

    images = np.zeros((len(characters), size, size), "float32")
    for image, character in zip(images, characters, strict=True):
        square = Image.new("L", (size, size))
        ImageDraw.Draw(square).text(tuple(place), character, fill=255, font=face, anchor="ls")
        image[:] = np.asarray(square) / 255
    return images


def opened(font):
    """A font of a file, or of a name; a file may hold several. Raises: ConfigError, MissingMatplotlibError"""
    try:
        from matplotlib.font_manager import findfont, findSystemFonts
        from PIL import ImageFont
    except ImportError as error:
        raise MissingMatplotlibError("glyphs need matplotlib: pip install matplotlib") from error
    if font is not None and os.path.isfile(font):
        return ImageFont.truetype(font, 100)
    wanted = CJK_FONTS if font is None else (os.fspath(font),)
    known = [findfont(name, fallback_to_default=False) for name in wanted if name == "DejaVu Sans"]  # matplotlib's own
    found = {}
    for file in known or sorted(findSystemFonts()):
        with contextlib.suppress(OSError):  # no such face, or nothing that can be read
            for index in range(8):
                face = ImageFont.truetype(file, 100, index=index)
                name, style = face.getname()
                if name in wanted and (name not in found or style == "Regular"):
                    found[name] = face
    for name in wanted:
        if name in found:
            return found[name]
    if font is None:
        raise ConfigError(f"no font with Chinese characters is installed; {INSTALL}")
    raise ConfigError(f"no font {str(font)!r} is installed, and there is no such file; expected a font's name or file")


def check_characters(characters, face, font):
    """Raises: ConfigError for characters that a font draws as it draws what is in no font."""
    nothing = bytes(face.getmask("\U0010ffff"))
    missing = [c for c in characters if bytes(face.getmask(c)) == nothing]
    if missing or not characters:
        found = (
            f"{len(missing)} characters are not in the font: {''.join(missing[:20])}" if missing else "no characters"
        )
        raise ConfigError(f"{found}; expected characters of {font or face.getname()[0]}")


def page(images, path: str | os.PathLike) -> None:
    """Writes a page of images as a file, dark on light.

    Args:
        images: of 0 to 1; what is beyond counts as the nearer of them. Shape: (rows, columns, H, W)
    """
    from PIL import Image

    rows, columns, height, width = np.shape(images)
    framed = np.pad(np.clip(images, 0, 1), ((0, 0), (0, 0), (1, 1), (1, 1)))
    whole = framed.transpose(0, 2, 1, 3).reshape(rows * (height + 2), columns * (width + 2))
    os.makedirs(os.path.dirname(path) or ".", exist_ok=True)
    Image.fromarray((255 * (1 - whole)).astype("uint8")).resize((2 * whole.shape[1], 2 * whole.shape[0])).save(path)
