"""Finding people in galleries of any size: one interface, exact in this process or by a vector engine behind it."""

from ccan.search.build import build_index
from ccan.search.folder import Description, Recall, Source
from ccan.search.index import SearchIndex, exact_index, open_index
from ccan.search.interface import Engine, Found, Near, Views, Where

__all__ = [
    "Description",
    "Engine",
    "Found",
    "Near",
    "Recall",
    "SearchIndex",
    "Source",
    "Views",
    "Where",
    "build_index",
    "exact_index",
    "open_index",
]
