"""`goodseed config` prints what a run would get, and what each knob means."""

from __future__ import annotations

import pytest
import yaml
from pydantic import BaseModel

from pipeline import cli
from pipeline.config import Config, load, profiles

Printed = pytest.CaptureFixture[str]


def printed(capsys: Printed, *arguments: str) -> str:
    assert cli.main(["config", *arguments]) == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("profile", profiles())
def test_it_is_yaml_of_the_same_values(profile: str, capsys: Printed) -> None:
    override = 'beam.options=["--a: b", "# no comment"]'
    loaded = load(profile=profile, photos="photos", run_dir="run", overrides=[override])
    expected = loaded.model_dump(mode="json")
    expected["run_dir"] = expected["data"]["photos"] = None
    text = printed(capsys, "--profile", profile, "--set", override)
    assert yaml.safe_load(text) == expected


def test_each_knob_has_its_description_default_and_bounds(capsys: Printed) -> None:
    text = " ".join(printed(capsys, "--set", "trainer.epochs=3").replace("#", " ").split())
    for knob in (
        "Most epochs of training the whole network. Default: 8; at least 1 epochs: 3",
        "0 to 1. Default: 0.7; above 0; below 1 train_share: 0.7",
        "Default: auto; one of auto, float32, bfloat16, float16 precision: auto",
        "Required: --photos photos: null",
        "Default: 4Gi; of the form ^[0-9]+",
    ):
        assert knob in text
    for description in descriptions(Config):
        assert " ".join(description.split()) in text


def descriptions(section: type[BaseModel]) -> list[str]:
    found = [field.description for field in section.model_fields.values() if field.description]
    for field in section.model_fields.values():
        if isinstance(field.annotation, type) and issubclass(field.annotation, BaseModel):
            found += descriptions(field.annotation)
    return found


def test_every_knob_is_described() -> None:
    for name, section in Config.model_fields.items():
        assert section.description or (section.annotation and section.annotation.__doc__), name
        if name != "run_dir":
            assert isinstance(section.annotation, type)
            assert issubclass(section.annotation, BaseModel)
            for knob, field in section.annotation.model_fields.items():
                assert field.description, f"{name}.{knob}"


def test_a_mistake_is_one_line(capsys: Printed) -> None:
    assert cli.main(["config", "--set", "trainer.epochs=0"]) == 2
    assert capsys.readouterr().err.startswith("goodseed: trainer.epochs: ")
