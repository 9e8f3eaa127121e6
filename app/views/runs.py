"""Runs: curves of run folders, live while they train, and what ablations found, with spread and cost."""

from __future__ import annotations

from app.components.charts import curve_chart, curve_colour
from app.components.html import button, choices, empty, panel, save_menu, tag, text
from app.runs import Run, drawn_runs
from app.selection import Selection
from app.store import Store
from app.views import help
from ccan.experiments.ablations import ABLATIONS

AWAY = ("epoch",)
FIRST = ("loss", "learning_rate", "mAP", "rank1")


def show(store: Store, selection: Selection) -> str:
    """The view's HTML."""
    runs = store.runs.all()
    if not runs:
        words = (
            "No run folder here yet: train one (README, “Train”), or say where they are with --runs DIR. "
            "A run that trains is followed live."
        )
        body = panel("Training curves", empty(words) + _following("looking for runs"))
    else:
        body = _curves(selection, runs) + _list(selection, runs)
    return tag(
        "div",
        help.panel("runs") + body + _tables(store),
        class_="ccan runs",
        data_event="act",
    )


def metrics_of(runs: list[Run]) -> list[str]:
    """What journals hold, the well-known first."""
    known = {
        name
        for run in runs
        for line in run.lines[:1] + run.lines[-1:]
        for name, value in line.items()
        if isinstance(value, int | float) and name not in AWAY
    }
    return [*(name for name in FIRST if name in known), *sorted(known - set(FIRST))]


def metric_of(selection: Selection, runs: list[Run]) -> str:
    """The metric that is drawn."""
    known = metrics_of(runs)
    return selection.metric if selection.metric in known else next(iter(known), "loss")


def _curves(selection: Selection, runs: list[Run]) -> str:
    drawn, metric = drawn_runs(selection.curves, runs), metric_of(selection, runs)
    series = {run.name: run.curve(metric) for run in drawn}
    live = any(run.live for run in drawn)
    names = {name: name.replace("_", " ") for name in metrics_of(runs)}
    pick = choices("What is drawn", "metric", names, metric)
    note = "Epoch by epoch; a cross is the last one. " + (
        "A run is training: this looks again every five seconds." if live else ""
    )
    poll = _following("following") if live else ""
    return panel(
        f"Training curves: {names.get(metric, metric)}",
        pick + curve_chart(series, metric) + text(note, "p", class_="note") + poll,
        extra=save_menu("curves"),
    )


def _following(words: str) -> str:
    """That the page looks again every five seconds."""
    return text(f"{words} …", class_="pending", data_poll="5000")


def _list(selection: Selection, runs: list[Run]) -> str:
    drawn = [run.name for run in drawn_runs(selection.curves, runs)]
    rows = ""
    for run in runs:
        shown = run.name in drawn
        place = drawn.index(run.name) if shown else 0
        key = text("■" if shown else "□", style=f"color:{curve_colour(place)}" if shown else None)
        state = "training" if run.live else "finished" if run.finished else "stopped"
        last = run.lines[-1] if run.lines else {}
        seconds = sum(line.get("seconds", 0) for line in run.lines)
        speed = last.get("images_per_second")
        cells = (
            f"{len(run.lines)} / {run.epochs or '?'}",
            _number(last.get("loss")),
            _number(speed, "{:.0f}"),
            f"{seconds / 60:.1f}",
            state,
        )
        name = button(key + text(run.name), "curve", run.name, pressed=shown)
        rows += tag(
            "tr",
            tag("th", name, scope="row") + "".join(text(cell, "td", class_="n") for cell in cells),
        )
    header = ("run", "epochs", "loss", "images/s", "minutes", "")
    head = "".join(text(name, "th", scope="col") for name in header)
    extra = button("the newest", "curve", "", pressed=not selection.curves)
    return panel("Runs", tag("table", tag("tr", head) + rows, class_="table"), extra=extra)


def _number(value: object, fmt: str = "{:.3f}") -> str:
    return fmt.format(value) if isinstance(value, int | float) else "–"


def _tables(store: Store) -> str:
    found = store.runs.tables()
    if not found:
        words = "No ablation with two finished rows here; `ccan ablate` makes them (README, “Ablations”)."
        return panel("Ablations", empty(words))
    body = ""
    for sweep, table in found:
        asked = ABLATIONS[table.name]
        header, lines = table.texts()
        head = "".join(text(name, "th", scope="col") for name in header)
        rows = "".join(
            tag(
                "tr",
                text(line[0], "th", scope="row")
                + "".join(text(x, "td", class_="n") for x in line[1:]),
            )
            for line in lines
        )
        body += panel(
            asked.asks,
            tag("div", tag("table", tag("tr", head) + rows, class_="table"), class_="scroll")
            + text(f"{asked.source}. {sweep}: {table.note()}", "p", class_="note"),
        )
    return body
