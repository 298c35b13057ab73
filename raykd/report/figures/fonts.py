"""Text that the figures' fonts can draw: the names of classes and devices may hold any character."""

import re
from functools import lru_cache

from matplotlib import font_manager
from matplotlib.figure import Figure
from matplotlib.text import Text

FALLBACK_FONTS = (  # of Chinese, Japanese and Korean, where they are installed
    "Noto Sans CJK SC", "Noto Sans CJK JP", "Noto Sans SC", "Source Han Sans SC", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "IPAGothic", "NanumGothic", "Hiragino Sans", "PingFang SC",
    "Apple SD Gothic Neo", "Microsoft YaHei", "Malgun Gothic", "Arial Unicode MS",
)  # fmt: skip


def list_fonts() -> list[str]:
    """Returns DejaVu Sans, which matplotlib brings, and the installed fonts that stand in for it."""
    installed = set(font_manager.get_font_names())
    return ["DejaVu Sans", *(name for name in FALLBACK_FONTS if name in installed)]


@lru_cache
def drawable_characters() -> frozenset[int]:
    """Returns the code points that these fonts have, and the line break."""
    fonts = [font_manager.get_font(font_manager.findfont(name)) for name in list_fonts()]
    return frozenset(code for font in fonts for code in font.get_charmap()) | {ord("\n")}


def escape_missing(text: str) -> str:
    r"""Returns the text, with \u732b for a character that no font at hand has."""
    drawable = drawable_characters()
    return "".join(char if ord(char) in drawable else char.encode("unicode_escape").decode() for char in text)


def escape_texts(figure: Figure) -> None:
    """Escapes what no font at hand has in all texts of a figure; matplotlib would draw empty boxes."""
    for text in figure.findobj(Text):
        assert isinstance(text, Text)
        text.set_text(escape_missing(text.get_text()))
    for axis in (axis for axes in figure.axes for axis in (axes.xaxis, axes.yaxis)):
        labels = [label.get_text() for label in axis.get_ticklabels()]
        if labels != (escaped := [escape_missing(label) for label in labels]):
            axis.set_ticks(axis.get_ticklocs(), escaped)


def restore_missing(svg: str) -> str:
    """Returns an SVG with the escaped characters themselves: who shows it has fonts of its own.

    Markup cannot arise: its characters are in every font, so they were never escaped.
    """

    def restore(match: re.Match[str]) -> str:
        char = chr(min(int(match[1] or match[2], 16), 0x10FFFF))
        return char if char.isprintable() and ord(char) not in drawable_characters() else match[0]

    return re.sub(r"\\u([0-9a-f]{4})|\\U([0-9a-f]{8})", restore, svg)
