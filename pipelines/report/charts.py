"""Draws the report's trend as inline line charts, each with a description for readers who cannot see it."""

import io
import re
from collections.abc import Iterator, Sequence
from typing import Any
from xml.etree import ElementTree as ET

from markupsafe import Markup

from pipelines.plain_text import UNITS, unit_of
from pipelines.report.data import TrendPoint

# Placeholder colours, replaced by variables of the style sheet after drawing.
_COLOURS = {
    "#010101": "var(--line)",
    "#020202": "var(--line-2)",
    "#030303": "var(--muted)",
    "#040404": "var(--rule)",
    "#050505": "var(--page)",
}
_LINE, _LINE_2, _MUTED, _RULE, _PAGE = _COLOURS
_SVG = "{http://www.w3.org/2000/svg}"
_XLINK = "{http://www.w3.org/1999/xlink}"


def charts(trend: Sequence[TrendPoint]) -> list[dict[str, Any]]:
    """Line charts of the trend; figures known on fewer than two days have no chart."""
    sizes = [None if day.summary is None else day.summary.total_bytes for day in trend]
    power = max(unit_of(size or 0) for size in sizes)
    wanted: list[tuple[str, str, list[tuple[str, Sequence[float | None]]]]] = [
        ("images", "Images", [("", [None if day.summary is None else day.summary.images for day in trend])]),
        (
            "size",
            f"Stored size in {UNITS[power]}",
            [("", [None if size is None else size / 1024**power for size in sizes])],
        ),
        (
            "findings",
            "Open findings",
            [("all", [day.findings for day in trend]), ("critical or high", [day.severe for day in trend])],
        ),
        ("cost", f"Estimated cost of a day in {trend[-1].currency}", [("", [day.cost for day in trend])]),
    ]
    return [
        {
            "key": key,
            "title": title,
            "legend": [name for name, _ in series if name],
            "svg": _chart(key, title, trend, [values for _, values in series]),
        }
        for key, title, series in wanted
        if sum(value is not None for value in series[0][1]) > 1
    ]


def _told(title: str, trend: Sequence[TrendPoint], values: Sequence[float | None]) -> str:
    """A line's content in words, for readers who cannot see it."""
    known = [(value, day.date) for value, day in zip(values, trend, strict=True) if value is not None]
    (first, since), (last, until) = known[0], known[-1]
    lowest, highest = min(known)[0], max(known)[0]
    figures = [
        f"{value:,.2f}" if isinstance(value, float) else f"{value:,}" for value in (first, last, lowest, highest)
    ]
    return (
        f"{title}: {figures[0]} on {since}, {figures[1]} on {until}; lowest {figures[2]}, highest {figures[3]}. "
        "The table of figures below has every day."
    )


def _chart(key: str, title: str, trend: Sequence[TrendPoint], series: Sequence[Sequence[float | None]]) -> Markup:
    """Draw one or two lines over the days as inline SVG; incomplete days are hollow marks, missing days are gaps."""
    # Imported here because it is slow and only needed here. Without pyplot, drawings share no state.
    import matplotlib as mpl  # noqa: PLC0415
    from matplotlib.backends.backend_svg import FigureCanvasSVG  # noqa: PLC0415
    from matplotlib.figure import Figure  # noqa: PLC0415
    from matplotlib.ticker import FuncFormatter, MaxNLocator  # noqa: PLC0415

    # Keep text as text, never as a formula; make ids reproducible.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": key, "text.parse_math": False}):
        figure = Figure(figsize=(5.2, 2.3))
        FigureCanvasSVG(figure)
        axes = figure.add_axes((0.11, 0.15, 0.87, 0.81))
        figure.patch.set_visible(False)
        axes.patch.set_visible(False)
        for side in ("left", "right", "top"):
            axes.spines[side].set_visible(False)
        axes.spines["bottom"].set_color(_RULE)
        axes.grid(axis="y", color=_RULE, linewidth=0.6)
        axes.set_axisbelow(True)
        axes.tick_params(colors=_MUTED, labelsize=11, length=0)
        positions = range(len(trend))
        for values, colour, style in zip(series, (_LINE, _LINE_2), ("-", (0, (3, 1.5))), strict=False):
            axes.plot(positions, [_nan(value) for value in values], color=colour, linewidth=1.8, linestyle=style)
            hollow = [at for at, day in enumerate(trend) if day.state == "incomplete" and values[at] is not None]
            axes.plot(
                hollow, [_nan(values[at]) for at in hollow], "o", ms=5, mec=colour, mew=1.4, mfc=_PAGE, clip_on=False
            )
            alone = [at for at in _alone(values) if at not in hollow]
            axes.plot(alone, [_nan(values[at]) for at in alone], "o", ms=4, color=colour, clip_on=False)
        known = [value for values in series for value in values if value is not None]
        # Leave room, so that a change of one percent does not look like a cliff.
        room = max((max(known) - min(known)) * 0.15, max(known) * 0.03, 0.5 if isinstance(known[0], int) else 0.005)
        axes.set_ylim(max(min(known) - room, 0), max(known) + room)
        axes.set_xlim(-0.3, len(trend) - 0.7)
        is_whole = isinstance(known[0], int)
        axes.yaxis.set_major_locator(MaxNLocator(nbins=4, integer=is_whole, steps=[1, 2, 5, 10]))
        if is_whole:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
        marks = sorted({round(number * (len(trend) - 1) / 3) for number in range(4)})
        axes.set_xticks(marks, [f"{trend[at].date.day} {trend[at].date:%b}" for at in marks])
        for at, label in zip(marks, axes.get_xticklabels(), strict=True):
            label.set_horizontalalignment("left" if at == 0 else "right" if at == marks[-1] else "center")
        drawing = io.BytesIO()
        figure.savefig(drawing, format="svg", metadata=dict.fromkeys(("Date", "Creator", "Format", "Type")))
    return _inline(drawing.getvalue(), key, title, " ".join(_told(title, trend, values) for values in series[:1]))


def _nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _alone(values: Sequence[float | None]) -> Iterator[int]:
    """Positions of values without a neighbour, which no line connects."""
    padded = [None, *values, None]
    for at, value in enumerate(values):
        if value is not None and padded[at] is None and padded[at + 2] is None:
            yield at


def _inline(drawing: bytes, key: str, title: str, description: str) -> Markup:
    """Make a drawing an element of the page: with title, description, the page's colours, and unique ids."""
    root = ET.fromstring(drawing)  # noqa: S314  (drawn by us)

    def renamed(reference: re.Match[str]) -> str:
        return _COLOURS.get(reference[0]) or f"#{key}-{reference[1]}"

    for parent in list(root.iter()):
        for child in list(parent):
            if child.tag in (f"{_SVG}metadata", f"{_SVG}style"):
                parent.remove(child)
    for element in root.iter():
        element.tag = element.tag.removeprefix(_SVG)
        for name, value in list(element.attrib.items()):
            del element.attrib[name]
            text = f"{key}-{value}" if name == "id" else re.sub(r"#([\w-]+)", renamed, value)
            element.set(name.removeprefix(_XLINK), text)
    for name in ("width", "height", "version"):
        del root.attrib[name]
    root.set("role", "img")
    root.set("aria-labelledby", f"{key}-title {key}-desc")
    for at, (name, text) in enumerate((("title", title), ("desc", description))):
        element = ET.Element(name, id=f"{key}-{name}")
        element.text = text
        root.insert(at, element)
    return Markup(ET.tostring(root, encoding="unicode"))  # noqa: S704  (the serialiser escapes)
