"""`goodseed config`: the configuration that a run would have, with a comment for each knob."""

from __future__ import annotations

import argparse
import sys
import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

import yaml

from pipeline.config import Config, load

# How the bounds of JSON Schema are printed.
_BOUNDS = {
    "minimum": "at least {}",
    "exclusiveMinimum": "above {}",
    "maximum": "at most {}",
    "exclusiveMaximum": "below {}",
    "enum": "one of {}",
    "pattern": "of the form {}",
}
# Knobs without a default: the option of `goodseed run` that gives them.
_REQUIRED = {"run_dir": "--run-dir", "photos": "--photos"}


def add_command(commands: Any) -> None:
    """Adds `config` to the commands of `goodseed`."""
    parser = commands.add_parser(
        "config", help="print the configuration that a run would have", allow_abbrev=False,
        description="Prints the configuration that a run would have as YAML, each knob with its "
        "description, unit, default and bounds.",
    )  # fmt: skip
    add_profile(parser)
    parser.set_defaults(command=_config)


def add_profile(parser: argparse.ArgumentParser) -> None:
    """Adds the options that choose a configuration: --profile and --set."""
    parser.add_argument("--profile", default="cpu", help="demo, cpu or gpu (default: cpu)")
    add_set(parser, "of pipeline/config.py instead of the profile's")


def add_set(parser: argparse.ArgumentParser, instead: str) -> None:
    """Adds --set; `instead` says which option it replaces."""
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", dest="overrides",
        help=f"one option {instead}; may be repeated",
    )  # fmt: skip


def _config(options: argparse.Namespace) -> int:
    loaded = load(profile=options.profile, photos="", run_dir="", overrides=options.overrides)
    sys.stdout.write(as_yaml(loaded))
    return 0


def as_yaml(config: Config) -> str:
    """A configuration as YAML with comments; the photos and the run's folder are null."""
    values = config.model_dump(mode="json")
    values["run_dir"] = values["data"]["photos"] = None
    schema = Config.model_json_schema()
    return "\n".join(_lines(schema, schema["$defs"], values, "")).lstrip("\n") + "\n"


def _lines(
    section: Mapping[str, Any], sections: Mapping[str, Any], values: Mapping[str, Any], indent: str
) -> Iterator[str]:
    """The lines of a section: the comment and the value of each of its knobs."""
    for name, knob in section["properties"].items():
        inner = sections.get(knob.get("$ref", "").rpartition("/")[2])
        if inner:
            yield ""
            yield from _comment(knob.get("description") or inner["description"], indent)
            yield f"{indent}{name}:"
            yield from _lines(inner, sections, values[name], indent + "  ")
        else:
            yield from _comment(f"{knob['description']}. {_limits(name, knob)}", indent)
            text = yaml.safe_dump({name: values[name]}, allow_unicode=True, sort_keys=False)
            yield textwrap.indent(text.rstrip("\n"), indent)


def _limits(name: str, knob: Mapping[str, Any]) -> str:
    """The default and the bounds of a knob, from its JSON Schema."""
    types = [knob, *knob.get("anyOf", ())]  # a knob that may be null has a list of types
    bounds = [
        words.format(", ".join(bound) if isinstance(bound, list) else bound)
        for key, words in _BOUNDS.items()
        for bound in (one[key] for one in types if key in one)
    ]
    if "default" in knob:
        default = yaml.safe_dump(
            knob["default"], allow_unicode=True, default_flow_style=True, width=1000
        )
        said = f"Default: {default.removesuffix('...' + chr(10)).strip()}"
    else:
        said = f"Required: {_REQUIRED[name]}"
    return "; ".join([said, *bounds])


def _comment(text: str, indent: str) -> list[str]:
    return textwrap.wrap(
        text, width=100, initial_indent=f"{indent}# ", subsequent_indent=f"{indent}# ",
        break_long_words=False,
    )  # fmt: skip
