"""The chart: how each ratio stands to its bound, as an SVG picture."""

from collections.abc import Sequence
from html import escape

from bench.rows import Figure

LABEL, WIDTH, ROW, MARGIN = 330, 420, 30, 34  # pixels
LARGEST = 1.6  # the ratio at the right edge; a longer bar is cut off there
KEPT, MISSED = "#2f7d4f", "#b3261e"


def chart(figures: Sequence[Figure]) -> str:
    """The figures that have a bound for their ratio: a bar each, and a line at the bound."""
    compared = [figure for figure in figures if figure.compares]
    height = MARGIN + ROW * len(compared) + MARGIN
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{LABEL + WIDTH + 70}" height="{height}" '
        'font-family="sans-serif" font-size="12">',
        '<rect width="100%" height="100%" fill="white"/>',
        '<text x="10" y="20">Clustr / floor; black: the bound, dashed: as the floor</text>',
    ]
    for number, figure in enumerate(compared):
        parts += _row(figure, MARGIN + ROW * number)
    bottom = MARGIN + ROW * len(compared)
    parts += [
        f'<line x1="{_x(1)}" x2="{_x(1)}" y1="{MARGIN - 6}" y2="{bottom}" stroke="gray" '
        'stroke-dasharray="4"/>',
        *(
            f'<text x="{_x(tenths / 10)}" y="{bottom + 18}" text-anchor="middle">'
            f"{tenths / 10:g}</text>"
            for tenths in range(0, 16, 5)
        ),
        "</svg>",
    ]
    return "\n".join(parts) + "\n"


def _row(figure: Figure, top: int) -> list[str]:
    end, bound = _x(figure.ratio), _x(figure.bound)
    direction = "at most" if figure.less_is_better else "at least"
    return [
        f'<text x="10" y="{top + 17}">{escape(figure.work.strip())}, {figure.unit}</text>',
        f'<rect x="{LABEL}" y="{top + 5}" width="{end - LABEL}" height="16" '
        f'fill="{KEPT if figure.kept else MISSED}"/>',
        f'<line x1="{bound}" x2="{bound}" y1="{top + 1}" y2="{top + 25}" stroke="black" '
        f'stroke-width="2"><title>{direction} {figure.bound:g}</title></line>',
        f'<text x="{max(end, bound) + 6}" y="{top + 17}">{figure.ratio:.2f}</text>',
    ]


def _x(ratio: float) -> int:
    return LABEL + round(min(ratio, LARGEST) / LARGEST * WIDTH)
