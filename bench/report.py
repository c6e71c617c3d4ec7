"""The report: a table in Markdown and a chart, with what the machine was."""

import math
import os
import platform
import statistics
from collections.abc import Sequence
from pathlib import Path

from bench.chart import chart
from bench.rows import Figure

RESULTS = Path(__file__).parent / "results"


def table(figures: Sequence[Figure], header: bool = True) -> str:
    """The figures as rows of a Markdown table."""
    lines = []
    if header:
        lines += ["| work | unit | Clustr | floor | ratio | bound | kept |", "|---" * 7 + "|"]
    for figure in figures:
        ours = f"{statistics.median(figure.ours):.4g}"
        floor = f"{statistics.median(figure.floor):.4g}" if figure.floor else ""
        ratio = f"{figure.ratio:.2f}" if figure.floor else ""
        bound = f"{'at most' if figure.less_is_better else 'at least'} {figure.bound:g}"
        if figure.most is not None:
            bound = f"ours at most {figure.most:g}"
        if figure.least is not None:
            bound = f"ours at least {figure.least:g}"
        kept = "yes" if figure.kept else "**no**"
        if figure.most == math.inf:
            bound = kept = ""
        lines.append(
            f"| {figure.work} | {figure.unit} | {ours} | {floor} | {ratio} | {bound} | {kept} |"
        )
    return "\n".join(lines)


def machine() -> str:
    """What it was measured on."""
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    release = platform.release().partition("-")[0]
    return (
        f"{platform.system()} {release}, {os.cpu_count()} cores, {memory:.0f} GiB, "
        f"Python {platform.python_version()}"
    )


def write(figures: Sequence[Figure], rounds: int) -> None:
    """Write the report, a table and a chart, to `bench/results/`."""
    RESULTS.mkdir(exist_ok=True)
    text = (
        "# Clustr against the floor\n\n"
        f"{machine()}; medians of {rounds} rounds that measured both in turn. The ratio is the "
        "median of the rounds' ratios.\n\n"
        f"{table(figures)}\n\n"
        "![Each ratio as a bar, and a line where its bound is](chart.svg)\n"
    )
    (RESULTS / "report.md").write_text(text)
    (RESULTS / "chart.svg").write_text(chart(figures))
