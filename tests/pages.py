"""What tests of the dashboard share: a store of a small dataset, pages taken apart, pictures to upload."""

from __future__ import annotations

import base64
import io
from html.parser import HTMLParser
from pathlib import Path

from PIL import Image

from app.store import Store
from ccan.data.records import ReIDDataset
from ccan.evaluation import evaluate_features
from ccan.gallery import index_dataset
from ccan.predictor import Predictor

HOSTILE = "0001_c1s1_<img src=x onerror=alert(1)>&\"'.png"


def make_store(dataset: ReIDDataset, predictor: Predictor, cache: Path) -> Store:
    index = index_dataset(predictor, dataset, cache=cache)
    report = evaluate_features(index.query, index.gallery)
    return Store(predictor, index, report, "small", cache / "cases.jsonl")


def png(width: int = 30, height: int = 60) -> bytes:
    file = io.BytesIO()
    Image.new("RGB", (width, height), (20, 90, 160)).save(file, "PNG")
    return file.getvalue()


def uploaded(data: bytes, name: str = "me.png", **more: str) -> dict[str, object]:
    return {"name": name, "size": len(data), "data": base64.b64encode(data).decode(), **more}


class Page(HTMLParser):
    """Tags of a page with their attributes, and its text; every element that opens must close."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str]]] = []
        self.words = ""
        self.open: list[str] = []
        self.feed(html)
        assert self.open == [], f"left open: {self.open}"

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))
        if tag not in ("img", "input", "br"):
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, {name: value or "" for name, value in attrs}))

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open.pop() == tag, f"</{tag}> closes something else"

    def handle_data(self, data: str) -> None:
        self.words += data

    def asking(self, do: str) -> list[dict[str, str]]:
        """Everything that asks for an action."""
        return [attrs for _, attrs in self.tags if attrs.get("data-do") == do]

    def buttons(self, do: str) -> list[dict[str, str]]:
        return [attrs for tag, attrs in self.tags if tag == "button" and attrs.get("data-do") == do]

    def classed(self, name: str) -> list[dict[str, str]]:
        return [attrs for _, attrs in self.tags if name in attrs.get("class", "").split()]

    def sources(self) -> list[str]:
        return [attrs["src"] for tag, attrs in self.tags if tag == "img"]
