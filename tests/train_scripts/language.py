"""One language recipe at the smoke preset in fp32, alone or as one of several processes; writes its losses."""

import dataclasses
import json
import sys
from pathlib import Path

import torch
from accelerate import PartialState

from pfmcourse import recipes
from pfmcourse.train import fit, seed_everything

torch.set_num_threads(1)


def losses(name: str) -> list[float]:
    recipe, config = recipes.get(name), recipes.config(name, "smoke", steps=6)
    data = recipe.data(config)
    seed_everything(0)
    model = recipe.model(config, data)
    schedule = dataclasses.replace(recipe.training(config, data), precision="fp32", log_every=1)
    return fit(model, recipe.batches(config, data, 0), schedule).curve("loss")[1]


if __name__ == "__main__":
    found = {name: losses(name) for name in sys.argv[2:]}
    state = PartialState()
    report = {"processes": state.num_processes, "losses": found}
    Path(sys.argv[1], f"{state.process_index}.json").write_text(json.dumps(report), encoding="utf-8")
