"""The page as a whole: valid, self-contained, safe, complete, the same twice, and not too large."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from semblance.report import render, write_report
from semblance.report.data import ReportData, from_collection
from semblance.report.gallery import gallery

pytestmark = pytest.mark.usefixtures("without_tsne")

VOID = {"meta", "img", "br", "hr", "input", "link"}
SVG_LEAVES = {"line", "circle", "path"}


class Page(HTMLParser):
    """Checks that tags close in order, and collects ids, attributes and texts."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.open: list[str] = []
        self.tags: list[str] = []
        self.ids: list[str] = []
        self.attributes: list[tuple[str, str, str]] = []
        self.raw: dict[str, list[str]] = {"script": [], "style": []}
        self.words: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        for name, value in attrs:
            self.attributes.append((tag, name, value or ""))
            if name == "id":
                self.ids.append(value or "")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] in self.raw:
            self.raw[self.open[-1]].append(data)
        else:
            self.words.append(data)

    @property
    def text(self) -> str:
        return "".join(self.words)


def page(collection: Any, labels: Any = None) -> tuple[str, Page, ReportData]:
    data = from_collection(collection, labels)
    text = render(data)
    return text, Page(text), data


SECTIONS = ["happened", "metrics", "training", "map", "neighbours", "duplicates", "unreadable", "use"]


def test_it_parses_and_has_every_section_in_order(collection: Any) -> None:
    _, parsed, _ = page(collection)
    assert [name for name in parsed.ids if name in SECTIONS] == SECTIONS
    assert len(set(parsed.ids)) == len(parsed.ids)
    links = [value[1:] for tag, name, value in parsed.attributes if tag == "a" and name == "href"]
    assert set(links) <= set(parsed.ids)


def test_nothing_is_fetched(collection: Any, evaluation: dict[str, Any]) -> None:
    collection.info["evaluation"] = evaluation
    text, parsed, _ = page(collection)
    assert not re.search(r"https?:|//[a-z]+\.[a-z]", re.sub(r"base64,[A-Za-z0-9+/=]+", "", text))
    for _, name, value in parsed.attributes:
        if name in ("src", "href", "xlink:href", "action", "poster", "data"):
            assert value.startswith(("data:image/jpeg;base64,", "#"))
    assert not {"link", "iframe", "object", "embed", "base", "form"} & set(parsed.tags)
    styles = "".join(parsed.raw["style"])
    assert "@import" not in styles
    assert all(part.startswith("data:image/jpeg;base64,") for part in re.findall(r"url\(([^)]*)", styles))


def test_only_our_script_may_run(collection: Any) -> None:
    _, parsed, _ = page(collection)
    policy = next(
        value for _, name, value in parsed.attributes if name == "content" and "default-src" in value
    )
    assert "default-src 'none'" in policy
    scripts = parsed.raw["script"]
    assert len(scripts) == parsed.tags.count("script") == 2
    digest = base64.b64encode(hashlib.sha256(scripts[1].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in policy
    assert not any(name.startswith("on") for _, name, _ in parsed.attributes)


def test_hostile_names_are_text(collection: Any) -> None:
    text, parsed, _ = page(collection)
    assert "<script>alert" not in text
    assert "onerror=alert(3)>" not in text
    assert parsed.tags.count("script") == 2
    shown = parsed.text
    for name in (
        "empty\\nfile.jpg",
        "\"quoted\" & 'single' <script>alert(1)</script>.png",
        "</script><script>alert(2)</script>",
        "völkl – 日本語 – 🙂.webp",
        "../up/\\u202egpj.exe",
        "<!-- --><img src=x onerror=alert(3)>",
        "bad <chunk> 0",
    ):
        assert name in shown


def test_names_in_the_maps_data_survive(collection: Any) -> None:
    _, parsed, data = page(collection)
    points = json.loads(parsed.raw["script"][0])
    assert tuple(points["names"]) == data.paths
    assert "<" not in parsed.raw["script"][0]


def test_lone_surrogates_can_be_written(build: Any) -> None:
    collection = build(bad=0)
    collection.info["name"] = "caf\udce9"
    collection.info["config"]["where"] = "\udcff"
    text, _, _ = page(collection)
    assert b"caf\\xe9" in text.encode("utf-8")


def test_the_maps_data_is_consistent(build: Any) -> None:
    _, parsed, data = page(build(n=50, labels=True))
    points = json.loads(parsed.raw["script"][0])
    n = len(data.paths)
    assert len(points["near"]) == len(points["label"]) == n
    for layout in points["layouts"]:
        assert len(layout["points"]) == 2 * n
        assert min(layout["points"]) >= 0
        assert max(layout["points"]) <= points["grid"]
    assert points["labels"] == ["class g <i>", "class r <i>", "class b <i>"]
    assert points["counts"] == [17, 17, 16]
    assert [points["labels"][i] for i in points["label"]] == list(data.labels or ())
    assert points["columns"] * points["columns"] >= n


def test_rare_labels_share_one_colour(build: Any) -> None:
    labels = {
        path: f"k{i % 14:02d}" for i, path in enumerate(build(n=42, bad=0).images.column("path").to_pylist())
    }
    _, parsed, _ = page(build(n=42, bad=0), labels)
    points = json.loads(parsed.raw["script"][0])
    assert len(points["labels"]) == 10
    assert points["labels"][-1] == "5 others"
    assert sum(points["counts"]) == 42


def test_query_rows_show_the_true_neighbours(collection: Any) -> None:
    _, parsed, data = page(collection)
    shown = gallery(data)
    x = data.embeddings.astype(np.float64)
    for query, ids, distances in zip(shown.queries, shown.ids, shown.distances, strict=True):
        apart = np.sqrt(((x - x[query]) ** 2).sum(1))
        apart[query] = np.inf
        np.testing.assert_allclose(distances, np.sort(apart)[: len(ids)], atol=1e-6)
        np.testing.assert_allclose(apart[ids], distances, atol=1e-6)
    alts = [value for tag, name, value in parsed.attributes if tag == "span" and name == "aria-label"]
    first = f"{data.paths[shown.ids[0, 0]]}, distance {shown.distances[0, 0]:.3f}"
    assert first in alts
    assert all(alts)


def test_every_picture_points_into_its_sheet(collection: Any) -> None:
    _, parsed, data = page(collection)
    shown = gallery(data)
    columns, lines = shown.sheet.columns, shown.sheet.lines
    allowed = {
        (round(100 * (i % columns) / (columns - 1), 4), round(100 * (i // columns) / (lines - 1), 4))
        for i in range(len(shown.place))
    }
    styles = [value for tag, name, value in parsed.attributes if tag == "span" and name == "style"]
    found = {tuple(float(v) for v in re.findall(r":([\d.]+)%", style)) for style in styles}
    assert found <= {(float(f"{x:g}"), float(f"{y:g}")) for x, y in allowed}
    assert len(found) == len(shown.place)


def test_bill_and_actual_stand_side_by_side(collection: Any) -> None:
    _, parsed, _ = page(collection)
    assert "1 min 40 s2 min 30 s1.50" in parsed.text
    assert "Time without report" in parsed.text
    assert "1 min 42 s2 min 31 s1.48" in parsed.text
    assert "1.0 GB1.2 GB1.20" in parsed.text


def test_a_collection_without_a_bill(collection: Any) -> None:
    collection.info["bill"] = collection.info["actual"] = None
    _, parsed, _ = page(collection)
    assert "Images–67" in parsed.text
    assert "Time in all" not in parsed.text


def test_metrics_or_an_honest_note(collection: Any, evaluation: dict[str, Any]) -> None:
    _, parsed, _ = page(collection)
    assert "cannot say whether the embedding is better" in parsed.text
    collection.info["evaluation"] = evaluation
    _, parsed, _ = page(collection)
    assert "cannot say" not in parsed.text
    assert "The nearest image is of the same class." in parsed.text


def test_a_frozen_model_has_no_curves(build: Any) -> None:
    _, parsed, _ = page(build(epochs=0))
    assert "Nothing was trained" in parsed.text
    assert "svg" not in parsed.tags


def test_empty_sections_are_left_out(build: Any) -> None:
    _, parsed, _ = page(build(bad=0, copies=0))
    assert "unreadable" not in parsed.ids
    assert "duplicates" not in parsed.ids


@pytest.mark.parametrize(("n", "map_there"), [(1, False), (2, True), (3, True)])
def test_very_few_images(build: Any, n: int, map_there: bool) -> None:
    _, parsed, _ = page(build(n=n, copies=0))
    assert ("map" in parsed.ids) == map_there
    assert ("neighbours" in parsed.ids) == map_there


def test_no_readable_image_at_all(build: Any) -> None:
    _, parsed, _ = page(build(n=0, bad=3, copies=0, embeddings=np.zeros((0, 8))))
    assert "unreadable" in parsed.ids
    assert "map" not in parsed.ids


def test_identical_embeddings(build: Any) -> None:
    alike = np.repeat(np.eye(1, 8, dtype=np.float32), 20, axis=0)
    _, parsed, _ = page(build(n=20, embeddings=alike))
    points = json.loads(parsed.raw["script"][0])
    assert set(points["layouts"][0]["points"]) == {points["grid"] // 2}
    assert "0.000" in parsed.text


def test_not_a_number_stays_out_of_the_page(build: Any) -> None:
    collection = build(n=20)
    collection.embeddings[4] = np.nan
    lines = collection.metrics()
    lines[2]["loss"] = float("nan")
    collection.metrics = lambda: lines
    text, _, _ = page(collection)
    assert not re.search(
        r"\bnan\b|\binf\b|NaN|Infinity", re.sub(r"base64,[A-Za-z0-9+/=]+|<script>.*", "", text, flags=re.S)
    )


def test_many_unreadable_files_are_counted(build: Any) -> None:
    text, parsed, _ = page(build(n=10, bad=5000))
    assert "and 4,800 more" in parsed.text
    assert text.count("<tr><td><bdi>") == 200
    assert len(text) < 400_000


def test_the_same_collection_gives_the_same_page(build: Any) -> None:
    assert page(build())[0] == page(build())[0]


def test_ten_thousand_images_stay_under_three_megabytes(build: Any) -> None:
    rng = np.random.default_rng(0)
    collection = build(n=10_000, copies=0, side=48)
    coarse = rng.integers(0, 256, (10_000, 8, 8, 3), dtype=np.uint8)
    collection.pixels = np.repeat(np.repeat(coarse, 6, axis=1), 6, axis=2)
    text, parsed, _ = page(collection)
    assert len(json.loads(parsed.raw["script"][0])["names"]) == 2000
    assert len(text.encode()) < 3_000_000


def test_it_is_written_whole_and_in_place(collection: Any, tmp_path: Path) -> None:
    collection.path = tmp_path
    assert write_report(collection) == tmp_path / "report.html"
    other = write_report(collection, tmp_path / "other.html")
    assert other.read_bytes() == (tmp_path / "report.html").read_bytes()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["other.html", "report.html"]
    assert other.read_text(encoding="utf-8").startswith("<!doctype html>")


def test_the_parts_of_the_page_keep_to_themselves() -> None:
    room = Path(__file__).parents[2] / "src" / "semblance" / "report"
    style, script = ((room / name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    assert "prefers-color-scheme: dark" in style
    assert "prefers-reduced-motion" in style
    assert "@media print" in style
    assert "</" not in script.replace("// ", "")
    assert not re.search(r"\b(fetch|XMLHttpRequest|import|eval)\s*\(", script)
    assert "innerHTML" not in script
