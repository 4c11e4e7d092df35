"""The section "Training": how the errors fell, what was trained when, and why it stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from components.review.inputs import Inputs
from components.review.page import Block, Cell, Chart, Section, Table, Text
from components.trainer.component import HISTORY_FILE
from components.trainer.fit import EPOCHS, HEAD, PATIENCE

_TRAIN, _EVAL = "train (it learns from these)", "eval (it does not)"

Entry = Mapping[str, Any]  # one epoch of the history


def section(inputs: Inputs) -> Section:
    """Curves, phases, learning rate, time and the end of the training."""
    history = read_history(inputs)
    settings = inputs.settings["trainer"]
    epochs, best = history["epochs"], history["best_epoch"]
    blocks: list[Block] = [
        Text([_story(history), _phases(epochs, settings), _end(history, settings)]),
        _curves("MAE: years off, on average", "mae", "years", epochs, best),
        _curves("Loss: mean squared error", "loss", "years²", epochs, best),
        _learning_rate(epochs),
        _table(epochs, best),
    ]
    return Section("training", "Training", blocks)


def read_history(inputs: Inputs) -> dict[str, Any]:
    """The Trainer's history.json, as `components.trainer.component` writes it."""
    path = inputs.artifacts["model_run"].path / HISTORY_FILE
    history: dict[str, Any] = json.loads(path.read_text())
    return history


def _story(history: Mapping[str, Any]) -> str:
    epochs = history["epochs"]
    seconds = sum(entry["seconds"] for entry in epochs)
    return (
        "An epoch is one pass over all photos of the train split, each shown as it is and "
        "mirrored; after each, the network is measured on the eval split, which it does not learn "
        f"from. The training lasted {_count(len(epochs), 'epoch')}: {_duration(seconds)} in all, "
        f"{seconds / len(epochs):,.1f} seconds an epoch on average. Weights of the network: "
        f"{_recorded(history, 'parameters')}; computed in: {_recorded(history, 'precision')}."
    )


def _end(history: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    best = history["epochs"][history["best_epoch"] - 1]
    why = {
        EPOCHS: "It stopped because all epochs that the configuration allows were over.",
        PATIENCE: (
            f"It stopped early: for {_count(settings['patience'], 'epoch')} in a row the MAE on "
            "the eval split had become no better."
        ),
    }.get(history.get("stopped", ""), "Why it stopped is not recorded.")
    return (
        f"{why} Kept are the weights of epoch {best['epoch']}, the best on the eval split: "
        f"{best['val_mae']:.2f} years off on average. The figure that counts is the one on the "
        "test split, in the sections above: this one chose the epoch and is therefore a little "
        "too good."
    )


def _recorded(history: Mapping[str, Any], name: str) -> str:
    value = history.get(name, "not recorded")
    return f"{value:,}" if isinstance(value, int) else str(value)


def _phases(epochs: Sequence[Entry], settings: Mapping[str, Any]) -> str:
    if settings["initial_weights"] == "none":
        return "It started from random weights, and all of them were trained from the start."
    head = sum(entry["phase"] == HEAD for entry in epochs)
    return (
        f"It started from the weights {settings['initial_weights']}. For {_count(head, 'epoch')} "
        "only the new last layer was trained and all before it was frozen; for "
        f"{_count(len(epochs) - head, 'epoch')} everything was trained but the layers of batch "
        "normalisation, which stay as the weights brought them."
    )


def _curves(title: str, metric: str, unit: str, epochs: Sequence[Entry], best: int) -> Chart:
    rows = [
        {"epoch": entry["epoch"], "photos": photos, "value": entry[prefix + metric]}
        for prefix, photos in (("", _TRAIN), ("val_", _EVAL))
        for entry in epochs
    ]
    lines = (
        alt.Chart(alt.InlineData(rows))
        .mark_line(point=True)
        .encode(
            _epoch_axis(epochs),
            alt.Y("value:Q", title=unit, scale=alt.Scale(zero=False)),
            alt.Color("photos:N", title="photos", scale=alt.Scale(domain=[_TRAIN, _EVAL])),
            alt.StrokeDash("photos:N", title="photos", scale=alt.Scale(domain=[_TRAIN, _EVAL])),
        )
    )
    kept = alt.Chart(alt.InlineData([{"epoch": best}])).mark_rule().encode(alt.X("epoch:Q"))
    first, last, chosen = epochs[0], epochs[-1], epochs[best - 1]
    told = "; ".join(
        f"on {split} {first[prefix + metric]:,.2f} after the first epoch, "
        f"{chosen[prefix + metric]:,.2f} after epoch {best}, which was kept, and "
        f"{last[prefix + metric]:,.2f} after the last"
        for prefix, split in (("", "train"), ("val_", "eval"))
    )
    description = f"In {unit}, by epoch: {told}. The upright line marks epoch {best}."
    return Chart(title, description, alt.layer(lines, kept))


def _epoch_axis(epochs: Sequence[Entry]) -> alt.X:
    whole = alt.Axis(values=[entry["epoch"] for entry in epochs], format="d")
    return alt.X("epoch:Q", title="epoch", axis=whole)


def _learning_rate(epochs: Sequence[Entry]) -> Chart:
    rows = [{key: entry[key] for key in ("epoch", "learning_rate")} for entry in epochs]
    rates = [entry["learning_rate"] for entry in epochs]
    spec = (
        alt.Chart(alt.InlineData(rows))
        .mark_line(point=True)
        .encode(
            _epoch_axis(epochs),
            alt.Y("learning_rate:Q", title="learning rate"),
        )
    )
    description = (
        "How large the steps of learning were at the end of each epoch: "
        f"{rates[0]:.3g} after the first, {max(rates):.3g} at most, {rates[-1]:.3g} at the end."
    )
    return Chart("Learning rate", description, spec)


def _table(epochs: Sequence[Entry], best: int) -> Table:
    columns = [
        "epoch", "trained", "learning rate at its end", "MAE on train, years", "MAE on eval, years",
        "loss on train, years²", "loss on eval, years²", "seconds",
    ]  # fmt: skip
    return Table(
        "Each epoch; the weights of the marked one were kept",
        columns,
        [_row(e, best) for e in epochs],
    )


def _row(entry: Entry, best: int) -> list[Cell | str]:
    kept = entry["epoch"] == best
    return [
        Cell(f"{entry['epoch']}{' (kept)' if kept else ''}", entry["epoch"], "good" * kept),
        "last layer" if entry["phase"] == HEAD else "whole network",
        Cell(f"{entry['learning_rate']:.3g}", entry["learning_rate"]),
        *(
            Cell(f"{entry[name]:,.2f}", entry[name])
            for name in ("mae", "val_mae", "loss", "val_loss")
        ),
        Cell(f"{entry['seconds']:,.1f}", entry["seconds"]),
    ]


def _count(number: int, thing: str) -> str:
    return f"{number:,} {thing}{'' if number == 1 else 's'}"


def _duration(seconds: float) -> str:
    minutes = round(seconds / 60)
    return f"{seconds:,.0f} seconds" if minutes < 3 else f"{minutes:,} minutes"
