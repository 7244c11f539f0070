"""A tiny run, shared by the tests of the loop and by the processes that they start, kill and join."""

import atexit
import dataclasses
import sys
from pathlib import Path

import torch
from torch import Tensor, nn

from pfmcourse.train import TrainConfig, fit

torch.set_num_threads(1)


@dataclasses.dataclass(frozen=True)
class Pairs:
    words: Tensor
    targets: dict[str, Tensor]
    title: str = "not a tensor"


class Tiny(nn.Module):
    """An embedding, a hidden layer, a norm and a head: parameters of every kind that the loop must sort and save."""

    def __init__(self, dropout: float = 0.0):
        super().__init__()
        self.embedding = nn.Embedding(12, 8)
        self.hidden = nn.Linear(8, 8)
        self.norm = nn.LayerNorm(8)
        self.dropout = nn.Dropout(dropout)
        self.lm_head = nn.Linear(8, 12)

    def forward(self, batch: Pairs) -> dict[str, Tensor]:
        features = self.norm(torch.tanh(self.hidden(self.embedding(batch.words))))
        logits = self.lm_head(self.dropout(features))
        correct = (logits.argmax(-1) == batch.targets["next"]).float().mean()
        return {"loss": nn.functional.cross_entropy(logits.float(), batch.targets["next"]), "accuracy": correct}


def tiny(dropout: float = 0.0, seed: int = 0) -> Tiny:
    torch.manual_seed(seed)
    return Tiny(dropout)


def batches(step: int, generator: torch.Generator) -> Pairs:
    words = torch.randint(12, (16,), generator=generator)
    return Pairs(words, {"next": (5 * words + 1) % 12})


def evaluate(model: Tiny) -> dict[str, float]:
    words = torch.arange(12)
    return {"test_loss": float(model(Pairs(words, {"next": (5 * words + 1) % 12}))["loss"])}


CONFIG = TrainConfig(steps=60, precision="fp32", log_every=7, evaluate_every=20, checkpoint_seconds=0.0)


def killed(folder: Path, optimizer: str) -> None:
    """Train with a checkpoint, saying each step aloud, until the parent kills this process; or to the end."""

    def aloud(step: int, generator: torch.Generator) -> Pairs:
        print(step, flush=True)
        return batches(step, generator)

    model = tiny(dropout=0.2)
    config = dataclasses.replace(CONFIG, optimizer=optimizer)
    history = fit(model, aloud, config, checkpoint=folder / "run.safetensors", evaluate=evaluate)
    history.save(folder / "history.json")
    torch.save(model.state_dict(), folder / "weights.pt")


def joined(folder: Path) -> None:
    """One of several processes: fail at step 30, resume, and finish; each writes what it saw."""
    from accelerate import PartialState

    # The first to be registered is the last to be called.
    atexit.register(lambda: print("still joined" if torch.distributed.is_initialized() else "left in order"))
    seen = []

    def failing(step: int, generator: torch.Generator) -> Pairs:
        seen.append(step)
        if step == 30 and seen.count(30) == 1:
            raise RuntimeError("a cable was pulled")
        return batches(step, generator)

    config = dataclasses.replace(CONFIG, accumulate=2)
    checkpoint = folder / "run.safetensors"
    try:
        fit(tiny(), failing, config, checkpoint=checkpoint, evaluate=evaluate)
    except RuntimeError as error:
        assert "cable" in str(error)
    model = tiny(seed=1)
    history = fit(model, failing, config, checkpoint=checkpoint, evaluate=evaluate)
    rank = PartialState().process_index
    history.save(folder / f"history{rank}.json")
    torch.save(model.state_dict(), folder / f"weights{rank}.pt")


if __name__ == "__main__":
    {"killed": killed, "joined": joined}[sys.argv[1]](Path(sys.argv[2]), *sys.argv[3:])
