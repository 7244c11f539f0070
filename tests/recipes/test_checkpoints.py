"""Every checkpoint that ships with the repository is what its card says."""

import dataclasses
import json

import pytest
import torch

from pfmcourse import base, recipes

FOLDER = base.repository() / "data" / "checkpoints"
CARDS = sorted(FOLDER.glob("*.json"))

each = pytest.mark.parametrize("card", CARDS, ids=lambda path: path.stem)


def test_each_card_has_its_weights_and_each_file_its_card():
    assert sorted(path.stem for path in FOLDER.glob("*.safetensors")) == [path.stem for path in CARDS]
    strangers = {path.name for path in FOLDER.glob("*") if path.suffix not in (".json", ".safetensors", ".lock")}
    assert strangers <= {".gitkeep"}
    assert {path.stem for path in CARDS} <= set(recipes.names())


@each
def test_a_checkpoint_is_small_and_of_the_present_recipe(card):
    content = json.loads(card.read_text(encoding="utf-8"))
    name = card.stem
    assert content["recipe"] == name
    assert content["preset"] == "long"
    words = content["command"].split()
    assert name in words and "long" in words and "pretrain" in words
    assert content["bytes"] == card.with_suffix(".safetensors").stat().st_size <= 5_000_000
    present = recipes.get(name).presets["long"]
    # A field that came later counts with its default, which is to mean: as before.
    fields = dataclasses.fields(present)
    defaults = {field.name: field.default for field in fields if field.default is not dataclasses.MISSING}
    trained = defaults | content["config"]
    changed = "the recipe has changed since: train it again"
    assert json.loads(json.dumps(trained)) == json.loads(json.dumps(dataclasses.asdict(present))), changed


@pytest.mark.slow
@each
def test_a_checkpoint_measures_what_its_card_says(card):
    run = recipes.load(card.stem)
    with torch.no_grad():
        found = run.recipe.metrics(run.config, run.data, run.model)
    assert found == pytest.approx(run.card["metrics"], rel=1e-3, abs=1e-4)
    assert all(parameter.isfinite().all() for parameter in run.model.parameters())
