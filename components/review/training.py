"""The section "Training": the curves, the phases, and why the training stopped."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import altair as alt

from components.review.inputs import NOT_RECORDED, Inputs
from components.review.page import Block, Cell, Chart, Section, Table, Text
from components.trainer.component import HISTORY_FILE
from components.trainer.fit import EPOCHS, HEAD, PATIENCE

_TRAIN, _EVAL = "train (the network learns from these)", "eval (it does not)"

Entry = Mapping[str, Any]  # an epoch of the history


def section(inputs: Inputs) -> Section:
    """The curves, phases, learning rate, time and end of the training."""
    history = read_history(inputs)
    settings = inputs.settings["trainer"]
    epochs, best = history["epochs"], history["best_epoch"]
    blocks: list[Block] = [
        Text([_story(history), _phases(epochs, settings), _end(history, settings)]),
        _curves("MAE", "mae", "years", epochs, best),
        _curves("Loss: mean squared error", "loss", "years²", epochs, best),
        _learning_rate(epochs),
        _table(epochs, best),
    ]
    return Section("training", "Training", blocks)


def read_history(inputs: Inputs) -> dict[str, Any]:
    """The history of the training; `components.trainer.component` writes it."""
    path = inputs.artifacts["model_run"].path / HISTORY_FILE
    history: dict[str, Any] = json.loads(path.read_text("utf-8"))
    return history


def _story(history: Mapping[str, Any]) -> str:
    epochs = history["epochs"]
    seconds = sum(entry["seconds"] for entry in epochs)
    return (
        "An epoch is one pass over all photos of the train split and their mirror images. After "
        "each epoch, the network is measured on the eval split, from which it does not learn. The "
        f"training took {_count(len(epochs), 'epoch')} and {_duration(seconds)}, which is "
        f"{seconds / len(epochs):,.1f} seconds per epoch. Number of weights in the network: "
        f"{recorded(history, 'parameters')}. Number format: {recorded(history, 'precision')}."
    )


def _end(history: Mapping[str, Any], settings: Mapping[str, Any]) -> str:
    best = history["epochs"][history["best_epoch"] - 1]
    why = {
        EPOCHS: "The training stopped after the number of epochs in the configuration.",
        PATIENCE: (
            "The training stopped early, because the MAE on the eval split did not improve for "
            f"{_count(settings['patience'], 'epoch')}."
        ),
    }.get(history.get("stopped", ""), "The reason for the end of the training is not recorded.")
    return (
        f"{why} The model has the weights of epoch {best['epoch']}, because this epoch had the "
        f"best MAE on the eval split: {best['val_mae']:.2f} years. This figure is a little too "
        "good, because it was used to choose the epoch. Use the figures on the test split, in the "
        "sections above."
    )


def recorded(history: Mapping[str, Any], name: str) -> str:
    """A value of the history as text."""
    value = history.get(name, NOT_RECORDED)
    return f"{value:,}" if isinstance(value, int) else str(value)


def _phases(epochs: Sequence[Entry], settings: Mapping[str, Any]) -> str:
    if settings["initial_weights"] == "none":
        return "The network started from random weights. All weights were trained in each epoch."
    head = sum(entry["phase"] == HEAD for entry in epochs)
    return (
        f"The network started from the weights {settings['initial_weights']}. For "
        f"{_count(head, 'epoch')}, only the new last layer was trained. For "
        f"{_count(len(epochs) - head, 'epoch')}, the whole network was trained. The statistics of "
        "its batch normalisation stayed as they were in the loaded weights."
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
    values = "; ".join(
        f"on {split} {first[prefix + metric]:,.2f} after the first epoch, "
        f"{chosen[prefix + metric]:,.2f} after epoch {best} and "
        f"{last[prefix + metric]:,.2f} after the last epoch"
        for prefix, split in (("", "train"), ("val_", "eval"))
    )
    description = f"In {unit}: {values}. The vertical line marks epoch {best}, which was kept."
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
        f"The learning rate was {rates[0]:.3g} at the end of the first epoch, {rates[-1]:.3g} at "
        f"the end of the last epoch, and {max(rates):.3g} at most."
    )
    return Chart("Learning rate", description, spec)


def _table(epochs: Sequence[Entry], best: int) -> Table:
    columns = [
        "epoch", "trained", "learning rate at its end", "MAE on train, years", "MAE on eval, years",
        "loss on train, years²", "loss on eval, years²", "seconds",
    ]  # fmt: skip
    return Table(
        "Epochs (the model has the weights of the marked one)",
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
