"""The sections of the page, each a function from data to a piece of HTML; an empty piece is left out."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from semblance.amounts import bytes_text, seconds_text
from semblance.report.curves import charts, draw
from semblance.report.data import ReportData, number
from semblance.report.wording import date_text, esc, table_html

__all__ = ["facts", "footer", "happened", "model_line", "section", "training", "unreadable"]


SHOW: dict[str, Callable[[float], str]] = {
    "seconds": seconds_text,
    "bytes": bytes_text,
    "count": lambda count: f"{count:,.0f}",
}


def section(name: str, title: str, lead: str, body: str) -> str:
    """One section; `lead` and `body` are HTML. No body, no section."""
    if not body:
        return ""
    return (
        f'<section id="{name}" aria-labelledby="{name}-title"><header><h2 id="{name}-title">{esc(title)}</h2>'
        f'<p class="lead">{lead}</p></header><div class="body">{body}</div></section>'
    )


def facts(data: ReportData) -> str:
    """The line of figures under the title."""
    items = [
        ("images", f"{data.images:,}"),
        ("unreadable", f"{data.unreadable_count:,}"),
        ("exact duplicates", f"{data.duplicate_count:,}"),
        ("dimensions", f"{data.embeddings.shape[1]:,}"),
    ]
    if data.epochs:
        items.append(("epochs", f"{len(data.epochs):,}"))
    return "".join(f"<div><dt>{name}</dt><dd>{value}</dd></div>" for name, value in items)


def model_line(data: ReportData) -> str:
    """One line on the model: objective, encoder, size, and the short form of its identity."""
    model = data.model if isinstance(data.model, Mapping) else {}
    config = data.config
    parts = []
    for key in ("objective", "encoder"):
        found = model.get(key) or config.get(key)
        name = found.get("name") if isinstance(found, Mapping) else found
        if name and isinstance(name, str):
            parts.append(f"{esc(name)} encoder" if key == "encoder" else esc(name))
    size = number(model.get("size")) or number(config.get("size"))
    if size is None and isinstance(config.get("images"), Mapping):
        size = number(config["images"].get("size"))
    if size:
        parts.append(f"{size:.0f} pixels")
    identity = _identity(data.model)
    if identity:
        parts.append(f"<code>{esc(identity[:12])}</code>")
    return " · ".join(parts)


def happened(data: ReportData) -> str:
    """The bill beside what the run really took: images, time by stage, memory, disk."""
    bill, actual = data.bill, data.actual
    rows = [_compare("Images", _count(bill, "images"), float(data.images), "count")]
    if data.unreadable_count or _count(bill, "unreadable"):
        rows.append(_compare("Unreadable", _count(bill, "unreadable"), float(data.unreadable_count), "count"))
    planned, taken = _stages(bill.get("seconds")), _stages(actual.get("seconds"))
    for stage in dict.fromkeys([*planned, *taken]):
        if stage != "total":
            rows.append(_compare(f"Time: {stage}", planned.get(stage), taken.get(stage), "seconds"))
    later = [stage for stage in planned if taken and stage not in taken and stage != "total"]
    name = f"Time without {' and '.join(later)}" if later else "Time in all"
    due = {stage: value for stage, value in planned.items() if not later or stage not in [*later, "total"]}
    rows.append(_compare(name, _total(due), _total(taken), "seconds", "total"))
    memory = ("peak_memory", "memory")
    rows.append(_compare("Peak memory", _any(bill, memory), _any(actual, memory), "bytes"))
    rows.append(_compare("Disk", _any(bill, ("disk",)), _any(actual, ("disk",)), "bytes"))
    head = (
        "<tr><th scope=col></th><th scope=col>Bill</th><th scope=col>Actual</th><th scope=col>Ratio</th></tr>"
    )
    return table_html(head, "".join(rows), "The bill beside what happened")


def training(data: ReportData) -> str:
    """Curves of loss, learning rate and health; one sentence for a frozen encoder."""
    if not data.epochs:
        return (
            '<div class="note"><p>Nothing was trained: this collection was embedded with a model as it was. '
            "There are no curves.</p></div>"
        )
    return f'<div class="charts">{"".join(draw(chart) for chart in charts(data.epochs))}</div>'


def unreadable(data: ReportData) -> str:
    """The files that could not be used, with the reason; "" if there are none."""
    if not data.unreadable:
        return ""
    lines = "".join(
        f"<tr><td><bdi>{esc(path)}</bdi></td><td>{esc(reason)}</td></tr>" for path, reason in data.unreadable
    )
    head = "<tr><th scope=col>File</th><th scope=col>Reason</th></tr>"
    rest = data.unreadable_count - len(data.unreadable)
    more = (
        f'<p class="fine">and {rest:,} more, all in <code>{esc(data.folder)}/images.parquet</code></p>'
        if rest > 0
        else ""
    )
    return f'<div class="tall">{table_html(head, lines, "Unreadable files", "files")}</div>{more}'


def footer(data: ReportData) -> str:
    """How to search, the model's identity, the resolved configuration and the version."""
    name = esc(shlex.quote(data.folder))
    commands = (
        f"semblance search {name} query.jpg -k 10\n"
        f"semblance embed {name} more/ --out more.npy\n"
        f"semblance evaluate {name} --labels labels.csv"
    )
    python = (
        f"import semblance\n\ncollection = semblance.open({esc(repr(data.folder))})\n"
        'collection.search("query.jpg", k=10)'
    )
    identity = _identity(data.model)
    model = f"<div><dt>Model</dt><dd><code>{esc(identity)}</code></dd></div>" if identity else ""
    version = f"<div><dt>Semblance</dt><dd>{esc(data.version)}</dd></div>" if data.version else ""
    created = f"<div><dt>Made</dt><dd>{esc(date_text(data.created))}</dd></div>" if data.created else ""
    text = json.dumps(data.config, indent=2, ensure_ascii=False, default=str)
    lines = "\n".join(esc(line) for line in text.split("\n"))
    config = (
        f"<details><summary>Resolved configuration</summary><pre><code>{lines}</code></pre></details>"
        if data.config
        else ""
    )
    return (
        f'<div class="ways"><div><h3>In a shell</h3><pre><code>{commands}</code></pre></div>'
        f"<div><h3>In Python</h3><pre><code>{python}</code></pre></div></div>"
        f'<dl class="about">{model}{version}{created}</dl>{config}'
    )


def _compare(name: str, planned: float | None, actual: float | None, unit: str, kind: str = "") -> str:
    if planned is None and actual is None:
        return ""
    show = SHOW[unit]
    cells = [
        f"<td>{esc(show(value))}</td>" if value is not None else "<td>–</td>" for value in (planned, actual)
    ]
    ratio = f"{actual / planned:.2f}" if planned and actual is not None and unit != "count" else ""
    row = f"<th scope=row>{esc(name)}</th>{''.join(cells)}<td>{ratio}</td>"
    return f'<tr class="{kind}">{row}</tr>'


def _count(bill: Mapping[str, Any], key: str) -> float | None:
    counts = bill.get("counts")
    inner = counts.get(key) if isinstance(counts, Mapping) else None
    return number(bill.get(key, inner))


def _any(values: Mapping[str, Any], keys: Sequence[str]) -> float | None:
    for key in keys:
        value = values.get(key)
        if isinstance(value, Mapping):
            value = value.get("total", sum(number(part) or 0.0 for part in value.values()))
        if (found := number(value)) is not None:
            return found
    return None


def _stages(seconds: Any) -> dict[str, float]:
    if isinstance(seconds, Mapping):
        return {str(key): found for key, value in seconds.items() if (found := number(value)) is not None}
    total = number(seconds)
    return {} if total is None else {"total": total}


def _total(stages: Mapping[str, float]) -> float | None:
    return stages.get("total", sum(stages.values())) if stages else None


def _identity(model: Any) -> str:
    if isinstance(model, Mapping):
        found = model.get("identity") or model.get("id") or model.get("hash") or ""
        return str(found)
    return str(model or "")
