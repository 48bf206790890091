"""The price of a bit: what codes keep of the float neighbours, as two charts and a table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from semblance.report.curves import Chart, Series, draw
from semblance.report.data import number, printable
from semblance.report.wording import esc, table_html

__all__ = ["price_lead", "price_panel"]

COLUMNS = (
    ("coder", "Coder"),
    ("bits", "Bits"),
    ("recall", "Codes alone"),
    ("reranked", "Measured again"),
    ("bytes", "Bytes"),
    ("ms", "ms a query"),
)


def price_lead(price: Mapping[str, Any] | None, codes: Mapping[str, Any] | None) -> str:
    """What the panel shows, in a sentence or two of HTML."""
    if not price:
        return ""
    k, shortlist = price.get("k"), price.get("shortlist")
    said = (codes or {}).get("chosen")
    return (
        f"Of the {esc(k)} images nearest in floats, how many are still found by codes alone, and after the "
        f"{esc(shortlist)} nearest codes are measured again in floats." + (f" {esc(said)}." if said else "")
    )


def price_panel(price: Mapping[str, Any] | None) -> str:
    """The charts and the table of `Collection.price`; "" where there is none."""
    rows = [row for row in (price or {}).get("rows", ()) if number(row.get("recall")) is not None]
    if not rows:
        return ""
    bits = sorted({int(row["bits"]) for row in rows})
    names = list(dict.fromkeys(str(row["coder"]) for row in rows))
    charts = [
        _chart("Codes alone", "What a search of the codes finds.", "recall", rows, names, bits),
        _chart(
            "Measured again", "What the same search finds with a second look.", "reranked", rows, names, bits
        ),
    ]
    head = "<tr>" + "".join(f"<th scope=col>{title}</th>" for _, title in COLUMNS) + "</tr>"
    body = "".join("<tr>" + "".join(_cell(row, key) for key, _ in COLUMNS) + "</tr>" for row in rows)
    drawn = "".join(map(draw, charts))
    return f'<div class="charts">{drawn}</div>{table_html(head, body, "The price of a bit")}'


def _chart(
    title: str,
    note: str,
    key: str,
    rows: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    bits: Sequence[int],
) -> Chart:
    found = {(str(row["coder"]), int(row["bits"])): number(row.get(key)) for row in rows}
    series = tuple(
        Series(printable(name), tuple(found.get((name, length)) for length in bits)) for name in names
    )
    places, words = tuple(range(len(bits))), tuple(str(length) for length in bits)
    return Chart(title, "recall", note, places, series, 0.0, 1.0, "bits", words)


def _cell(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if key == "coder":
        return f"<th scope=row>{esc(value)}</th>"
    if key in ("recall", "reranked"):
        return f"<td>{100 * float(value or 0):.1f} %</td>"
    return f"<td>{float(value or 0):.3f}</td>" if key == "ms" else f"<td>{esc(value)}</td>"
