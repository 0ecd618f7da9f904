"""Charts for people: SVG and PNG files by altair and vl-convert, the extra `plots`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from settlement.core.errors import Malformed, Unavailable

WIDTH, HEIGHT = 720, 320


def steps(points: Sequence[Mapping[str, Any]], *, title: str) -> Any:
    """Rates over time as steps: points have ``since`` (RFC 3339), ``meter`` and ``rate`` (microCU per million)."""
    alt = _altair()
    rows = [{**point, "cu": point["rate"] / 10**6} for point in points]
    return (
        alt.Chart(alt.Data(values=rows), title=title, width=WIDTH, height=HEIGHT)
        .mark_line(interpolate="step-after", point=True)
        .encode(
            x=alt.X("since:T", title="in force from"),
            y=alt.Y("cu:Q", title="CU per million units", scale=alt.Scale(type="symlog")),
            color=alt.Color("meter:N", title="meter"),
        )
    )


def lines(rows: Sequence[Mapping[str, Any]], *, y: str, title: str) -> Any:
    """Series over days: rows have ``date``, ``series`` and ``value``; `y` names the axis."""
    alt = _altair()
    return (
        alt.Chart(alt.Data(values=list(rows)), title=title, width=WIDTH, height=HEIGHT)
        .mark_line(strokeWidth=1.2)
        .encode(
            x=alt.X("date:T", title=None),
            y=alt.Y("value:Q", title=y),
            color=alt.Color("series:N", title=None),
        )
    )


def stacked(*charts: Any) -> Any:
    """Charts one above the other."""
    return _altair().vconcat(*charts).resolve_scale(color="independent")


def save(chart: Any, path: Path) -> None:
    """Write a chart as what the file's ending says. Raises Malformed ``plot_format``."""
    if path.suffix not in (".svg", ".png"):
        raise Malformed("plot_format", f"{path.name} must end in .svg or .png")
    chart.save(str(path), scale_factor=2 if path.suffix == ".png" else 1)


def _altair() -> Any:
    try:
        import altair
        import vl_convert  # noqa: F401 - what writes the file
    except ImportError:
        raise Unavailable(
            "extra_missing", "charts need the extra `plots`: pip install 'compute-settlement[plots]'"
        ) from None
    return altair
