"""The one training loop of the course, built on Accelerate.

``fit(model, batches, config)`` is what every lesson calls. The model's ``forward(batch)`` is its objective and returns
``{"loss": ..., other metrics}``; ``batches(step, generator)`` draws the batch of one step. The loop adds what a real
run needs: AdamW or Muon, warm-up and decay, clipping, accumulation, bf16 where it pays, many processes, checkpoints
that survive a killed process, and a record of what happened. Read ``fit`` first, at the end of the file, and then
``_Run.step`` just above it. ``machine``, ``optimizers`` and ``checkpoint`` beside this file hold its tools.

Three decisions shape it:

- All randomness of a step is seeded by (seed, step). A resumed run needs no sampler state to go on exactly as before.
- Nothing in a step waits for the device. Losses stay there until a row is due; only then are they read and checked.
- A step is all or nothing for the checkpoint: it is written between two steps, in one file, or not at all.
"""

import contextlib
import dataclasses
import itertools
import json
import math
import signal
import statistics
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator, DistributedDataParallelKwargs
from accelerate.utils import broadcast
from torch import Tensor, nn

from pfmcourse.base import CourseError, replace_fields, write_atomically
from pfmcourse.checkpoint import Checkpoint, fingerprint
from pfmcourse.machine import (
    bf16_is_faster,
    device,
    generator_of,
    mix_seed,
    peak_memory_mb,
    seed_everything,
    seed_torch,
)
from pfmcourse.optimizers import hidden_matrices, make_optimizers, schedule

__all__ = [
    "Batches",
    "DivergedError",
    "History",
    "TrainConfig",
    "bf16_is_faster",
    "device",
    "fit",
    "generator_of",
    "hidden_matrices",
    "make_optimizers",
    "map_tensors",
    "peak_memory_mb",
    "schedule",
    "seed_everything",
]

Batches = Callable[[int, torch.Generator], Any]
"""``(step, generator) -> batch``, steps from 0: a tensor, or nested tuples, lists, mappings and dataclasses of them."""


class DivergedError(CourseError):
    """The loss became NaN or infinite."""


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How to train. Every field is checked by ``fit`` before any work is done."""

    steps: int
    learning_rate: float = 3e-3  # AdamW's peak
    optimizer: Literal["adamw", "muon"] = "adamw"
    muon_learning_rate: float = 0.02  # peak on the hidden matrices, see hidden_matrices
    weight_decay: float = 0.0  # on tensors of two and more axes; norms and biases are never decayed
    betas: tuple[float, float] = (0.9, 0.95)
    warmup: float = 0.05  # share of the steps
    decay: Literal["linear", "cosine", "constant"] = "linear"
    final: float = 0.0  # where the decay ends, as a share of the peak
    clip: float = 1.0  # largest gradient norm; 0 switches clipping off
    accumulate: int = 1  # pieces the batch is cut into: same result, less memory
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    seed: int = 0
    unit: str = "examples"  # what throughput counts: words, tokens, pictures
    units_per_step: int = 0  # 0: the length of the batch axis
    log_every: int = 0  # steps between rows; 0: about 200 rows a run
    evaluate_every: int = 0  # 0: only at the end, if evaluate is given
    checkpoint_seconds: float = 30.0


@dataclasses.dataclass
class History:
    """What happened in a run, also over several sittings.

    A row holds "step" (updates done, from 1), "loss" and the model's other metrics (means over the steps since the row
    before; the first row is step 1 alone, before any update), "learning_rate" (AdamW's, at that step), "seconds" since
    the start, and what ``evaluate`` returned at that step, if it was called.
    """

    rows: list[dict[str, float]] = dataclasses.field(default_factory=list)
    steps: int = 0  # done so far
    planned: int = 0  # of how many
    seconds: float = 0.0  # of training, over all sittings
    units: int = 0  # examples, words, ... seen so far
    units_per_second: float = 0.0  # without the time spent in evaluate
    unit: str = "examples"
    peak_memory_mb: float = 0.0  # CUDA: allocated by tensors in this run; CPU: the whole process
    precision: str = "fp32"
    device: str = "cpu"
    processes: int = 1
    resumed_at: int | None = None  # the step at which the last sitting took up an earlier one
    interrupted: bool = False  # Ctrl-C; the same call resumes

    def curve(self, name: str = "loss") -> tuple[list[int], list[float]]:
        """The steps and values of the rows that hold ``name``, ready to plot."""
        rows = [row for row in self.rows if name in row]
        return [int(row["step"]) for row in rows], [row[name] for row in rows]

    def usual_rate(self) -> float:
        """Units a second over the median stretch between two rows: a hiccup of the machine does not count."""
        stretches = [
            (after["step"] - before["step"]) / (after["seconds"] - before["seconds"])
            for before, after in itertools.pairwise(self.rows)
        ]
        return self.units / self.steps * statistics.median(stretches) if stretches else self.units_per_second

    def to_json(self) -> str:
        """This history as JSON text."""
        return json.dumps(dataclasses.asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> "History":
        """The history that ``to_json`` wrote."""
        return cls(**json.loads(text))

    def save(self, path: Path) -> None:
        """Write ``to_json`` to ``path`` atomically."""
        with write_atomically(path) as temporary:
            temporary.write_text(self.to_json(), encoding="utf-8")

    @classmethod
    def load(cls, path: Path) -> "History":
        """Read what ``save`` wrote."""
        return cls.from_json(Path(path).read_text(encoding="utf-8"))


# Batches -------------------------------------------------------------------------------------------------------------


def map_tensors(tree: Any, change: Callable[[Tensor], Tensor]) -> Any:
    """A copy of nested tuples, lists, mappings and dataclasses with every tensor changed; other leaves pass through."""
    if isinstance(tree, Tensor):
        return change(tree)
    if isinstance(tree, Mapping):
        return {key: map_tensors(value, change) for key, value in tree.items()}
    if isinstance(tree, tuple) and hasattr(tree, "_fields"):  # a named tuple
        return type(tree)(*(map_tensors(value, change) for value in tree))
    if isinstance(tree, list | tuple):
        return type(tree)(map_tensors(value, change) for value in tree)
    if dataclasses.is_dataclass(tree) and not isinstance(tree, type):
        fields = {field.name: getattr(tree, field.name) for field in dataclasses.fields(tree) if field.init}
        return dataclasses.replace(tree, **{name: map_tensors(value, change) for name, value in fields.items()})
    return tree


def _lengths(batch: Any) -> list[int]:
    """The lengths of the batch axis, one per tensor."""
    lengths: list[int] = []
    map_tensors(batch, lambda tensor: lengths.append(len(tensor)) or tensor if tensor.ndim else tensor)
    return lengths


def _pieces(batch: Any, rank: int, world: int, accumulate: int) -> list[Any]:
    """This process's share ``[rank::world]`` of the global batch, cut into ``accumulate`` pieces along axis 0.

    A batch whose tensors have axes of their own, such as one of graphs, cuts itself: ``batch.cut(count)`` gives the
    pieces, the i-th with the rows ``[i::count]``.
    """
    if world == accumulate == 1:
        return [batch]
    if hasattr(batch, "cut"):
        return batch.cut(world * accumulate)[rank::world]
    lengths = set(_lengths(batch))
    if len(lengths) != 1 or min(lengths) % (world * accumulate):
        raise CourseError(
            f"a batch must be cut into equal pieces for {world} process(es) x accumulate={accumulate}, but its tensors "
            f"have {' and '.join(map(str, sorted(lengths))) or 'no'} rows. Choose a batch size that "
            f"{world * accumulate} divides, the same for every tensor, or another accumulate."
        )
    parts = [slice(rank + world * piece, None, world * accumulate) for piece in range(accumulate)]
    return [map_tensors(batch, lambda tensor, part=part: tensor[part] if tensor.ndim else tensor) for part in parts]


# The loop ------------------------------------------------------------------------------------------------------------


class _Window:
    """The losses and metrics of the steps since the last row: on the device first, as numbers once they were read."""

    def __init__(self, numbers: dict[str, list[float]] | None = None):
        self.tensors: dict[str, list[Tensor]] = {}
        self.numbers = numbers or {}

    def add(self, output: Mapping[str, Tensor | float]) -> None:
        for name, value in output.items():
            value = value.detach() if isinstance(value, Tensor) else torch.tensor(float(value))
            self.tensors.setdefault(name, []).append(value)

    def read(self, accelerator: Accelerator) -> list[float]:
        """Turn tensors into numbers, averaged over the processes, and return the new losses."""
        new: dict[str, list[float]] = {}
        for name, tensors in self.tensors.items():
            values = torch.stack([tensor.reshape(()).float() for tensor in tensors])
            new[name] = (accelerator.reduce(values, "mean") if accelerator.num_processes > 1 else values).tolist()
            self.numbers.setdefault(name, []).extend(new[name])
        self.tensors = {}
        return new.get("loss", [])

    def means(self) -> dict[str, float]:
        return {name: math.fsum(values) / len(values) for name, values in self.numbers.items()}


class _Shared(nn.Module):
    """The model as several processes share it, with a number that no forward uses.

    A head may rest in some steps, so the parallel wrapper is told to look for unused parameters; and it would print a
    warning in every process of every run that has none.
    """

    def __init__(self, model: nn.Module):
        super().__init__()
        self.model = model
        self.spare = nn.Parameter(torch.zeros(1, device=next(model.parameters()).device))

    def forward(self, batch: Any) -> Mapping[str, Tensor]:
        return self.model(batch)


class _ProgressLine:
    """One line in a terminal: step, loss, throughput, time left."""

    def __init__(self):
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeRemainingColumn())
        self.progress = Progress(*columns, console=Console(stderr=True))
        self.task: Any = None

    def __call__(self, history: History) -> None:
        loss = history.rows[-1]["loss"] if history.rows else math.nan
        text = f"loss {loss:.3f}  {history.units_per_second:,.0f} {history.unit}/s"
        if self.task is None:
            self.progress.start()
            self.task = self.progress.add_task(text, total=history.planned)
        self.progress.update(self.task, completed=history.steps, description=text)

    def close(self, history: History) -> None:
        self.progress.stop()


def _terminal_line() -> _ProgressLine | None:
    return _ProgressLine() if sys.stderr is not None and sys.stderr.isatty() else None


def _check(model: nn.Module, batches: Batches, config: TrainConfig) -> None:
    if not isinstance(config, TrainConfig):
        raise CourseError(f"config wants a TrainConfig, but got {type(config).__name__}. Try TrainConfig(steps=100).")
    if not isinstance(model, nn.Module):
        raise CourseError(f"model wants a torch.nn.Module, but got {type(model).__name__}.")
    if not callable(batches):
        raise CourseError(f"batches wants a function (step, generator) -> batch, but got {type(batches).__name__}.")
    replace_fields(config, dataclasses.asdict(config))  # checks the type of every field
    rules = {
        "steps": (config.steps >= 1, "at least 1"),
        "learning_rate": (0 < config.learning_rate < math.inf, "above 0"),
        "muon_learning_rate": (0 < config.muon_learning_rate < math.inf, "above 0"),
        "weight_decay": (0 <= config.weight_decay < math.inf, "0 or more"),
        "betas": (len(config.betas) == 2 and all(0 <= beta < 1 for beta in config.betas), "two numbers in [0, 1)"),
        "warmup": (0 <= config.warmup <= 1, "a share of the steps, between 0 and 1"),
        "final": (0 <= config.final <= 1, "a share of the peak, between 0 and 1"),
        "clip": (config.clip >= 0, "above 0, or 0 to switch clipping off"),
        "accumulate": (config.accumulate >= 1, "at least 1"),
        "units_per_step": (config.units_per_step >= 0, "0 or more"),
        "log_every": (config.log_every >= 0, "0 or more"),
        "evaluate_every": (config.evaluate_every >= 0, "0 or more"),
        "checkpoint_seconds": (config.checkpoint_seconds >= 0, "0 or more"),
    }
    for name, (holds, wanted) in rules.items():
        if not holds:
            raise CourseError(f"TrainConfig.{name} wants {wanted}, but got {getattr(config, name)!r}.")
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise CourseError(f"{type(model).__name__} has no trainable parameter; set requires_grad on those to train.")


def _check_output(model: nn.Module, output: Any) -> bool:
    wanted = f"{type(model).__name__}.forward(batch) must return a dict of scalar tensors with 'loss'"
    if not isinstance(output, Mapping) or "loss" not in output:
        got = f"the keys {sorted(map(str, output))}" if isinstance(output, Mapping) else type(output).__name__
        raise CourseError(f"{wanted}, but it returned {got}.")
    for name, value in output.items():
        if not isinstance(value, Tensor | int | float) or (isinstance(value, Tensor) and value.numel() != 1):
            got = f"has the shape {tuple(value.shape)}: take its mean" if isinstance(value, Tensor) else f"is {value!r}"
            raise CourseError(f"{wanted}, but {name!r} {got}.")
    if not isinstance(output["loss"], Tensor) or not output["loss"].requires_grad:
        raise CourseError(f"{wanted}, but this loss depends on no trainable parameter. Was it detached?")
    return True


class _Run:
    """The state of one call of ``fit`` and what can happen to it: a start, a step, a row, a save."""

    def __init__(self, model: nn.Module, batches: Batches, config: TrainConfig, evaluate: Any, watch: Any):
        self.model, self.batches, self.config, self.evaluate = model, batches, config, evaluate
        self.device = device()
        self.accelerator = Accelerator(
            cpu=self.device.type == "cpu",
            mixed_precision="no",  # autocast is entered in step instead, which leaves the model's forward untouched
            gradient_accumulation_steps=config.accumulate,
            kwargs_handlers=[DistributedDataParallelKwargs(find_unused_parameters=True)],  # some heads rest at times
        )
        self.rank, self.world = self.accelerator.process_index, self.accelerator.num_processes
        model.to(self.device)
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        # Accelerate need not prepare the optimizers: that serves fp16, and searches for a package in every step.
        self.optimizers = make_optimizers(model, config)
        bf16 = config.precision == "bf16" or (config.precision == "auto" and bf16_is_faster(self.device.type))
        precision = "bf16" if self.first_says(bf16) else "fp32"
        self.history = History(
            planned=config.steps, unit=config.unit, precision=precision, device=str(self.device), processes=self.world
        )
        self.window, self.generator = _Window(), torch.Generator()
        self.every = config.log_every or max(1, config.steps // 200)
        self.watch = (watch or _terminal_line()) if self.rank == 0 else None
        self.close = getattr(self.watch, "close", None)
        self.shown = -math.inf
        self.inside = False  # a step is in hand, so weights and history do not belong together
        self.stop = False  # Ctrl-C came while it was
        self.checked = False  # what the model returns
        self.last_read = time.perf_counter()

    def first_says(self, value: bool) -> bool:
        """The first process's value, in all of them."""
        return broadcast(torch.tensor([float(value)], device=self.device)).item() > 0 if self.world > 1 else value

    def start(self, store: Checkpoint) -> None:
        """Resume what the checkpoint holds, if anything, and set the clock."""
        usable = self.first_says(self.rank == 0 and store.acquire())
        if usable and (saved := store.load(self.model, self.optimizers)):
            past = saved["history"]
            for name in ("rows", "steps", "seconds", "units", "peak_memory_mb"):
                setattr(self.history, name, past[name])
            self.history.resumed_at = past["steps"]
            self.window.numbers = saved["window"]
            if self.config.precision == "auto" and past["device"] == self.history.device:
                self.history.precision = past["precision"]  # a second measurement must not change a run half-way
        self.accelerator.wait_for_everyone()  # the file is not written before every process has read it
        bf16 = self.history.precision == "bf16"
        self.autocast = torch.autocast(self.device.type, torch.bfloat16) if bf16 else contextlib.nullcontext()
        shared = _Shared(self.model) if self.world > 1 else self.model
        self.parallel = self.accelerator.prepare_model(shared)
        # Only now, because resuming gave the optimizers new groups.
        self.groups = [group for optimizer in self.optimizers for group in optimizer.param_groups]
        self.trainable = [parameter for group in self.groups for parameter in group["params"]]
        self.model.train()
        self.began = time.perf_counter() - self.history.seconds

    def step(self) -> None:
        """One update of the weights, from a batch and randomness that depend on (seed, step) alone."""
        config, number = self.config, self.history.steps
        self.generator.manual_seed(mix_seed(config.seed, number))
        seed_torch(mix_seed(config.seed, number, 0), self.device)
        batch = self.batches(number, self.generator)
        self.inside = True
        if self.rank:
            seed_torch(mix_seed(config.seed, number, self.rank), self.device)  # other examples, other dropout
        pieces = _pieces(batch, self.rank, self.world, config.accumulate)
        for place, piece in enumerate(pieces, start=1):
            if self.device.type != "cpu":
                piece = map_tensors(piece, lambda tensor: tensor.to(self.device, non_blocking=True))
            # Processes exchange gradients once a step, with the last piece.
            alone = self.world > 1 and place < len(pieces)
            with self.accelerator.no_sync(self.parallel) if alone else contextlib.nullcontext():
                with self.autocast:
                    output = self.parallel(piece)
                if not self.checked:
                    self.checked = _check_output(self.model, output)
                self.accelerator.backward(output["loss"])  # divides by accumulate
            self.window.add(output)
        if config.clip:
            self.accelerator.clip_grad_norm_(self.trainable, config.clip)
        rate = schedule(config, number)
        for group in self.groups:
            group["lr"] = group["peak"] * rate
        for optimizer in self.optimizers:
            optimizer.step()
        for parameter in self.trainable:  # zero_grad with less around it: tiny models take thousands of steps a minute
            parameter.grad = None
        self.history.units += config.units_per_step or (_lengths(batch) or [1])[0]
        self.history.steps += 1
        self.inside = False
        if self.stop:
            raise KeyboardInterrupt

    def read(self) -> None:
        """Read the losses since the last reading, and stop at the first that is no number."""
        config, losses = self.config, self.window.read(self.accelerator)
        for place, loss in enumerate(losses):
            if not math.isfinite(loss):
                step = self.history.steps - (len(losses) - place - 1) // config.accumulate
                rate = config.learning_rate * schedule(config, step - 1)
                muon = f" (Muon: {rate / config.learning_rate * config.muon_learning_rate:.3g})"
                raise DivergedError(
                    f"the loss became {loss} at step {step} of {config.steps}, where the learning rate was {rate:.3g}"
                    f"{muon if config.optimizer == 'muon' else ''}. Try a third of that, a longer warmup (it is "
                    f"{config.warmup:g} of the steps), clip=1.0 (it is {config.clip:g}), or precision='fp32' (it is "
                    f"{self.history.precision}). If step 1 is bad, look for log(0), 0/0 or a row without target in the "
                    "batch. Delete this run's checkpoint, if it has one, before you change its configuration."
                )
        self.last_read = time.perf_counter()

    def row(self, measure: bool) -> None:
        """Close the window of steps with a row of the history, and evaluate if it is time."""
        self.read()
        history, measured = self.history, {}
        history.seconds = time.perf_counter() - self.began
        history.units_per_second = history.units / history.seconds
        history.peak_memory_mb = max(history.peak_memory_mb, peak_memory_mb(self.device))
        rate = self.config.learning_rate * schedule(self.config, history.steps - 1)
        row = {"step": history.steps, **self.window.means(), "learning_rate": rate, "seconds": history.seconds}
        if measure:
            self.model.eval()
            with torch.no_grad():
                measured = {name: float(value) for name, value in self.evaluate(self.model).items()}
            self.model.train()
            self.began = time.perf_counter() - history.seconds  # the clock stood still
            if clash := sorted(measured.keys() & row.keys()):
                raise CourseError(f"evaluate returned {', '.join(clash)}, which the row holds already: rename it.")
        history.rows.append(row | measured)
        self.window = _Window()

    def save(self, store: Checkpoint) -> None:
        """Write the state between two steps, after making sure that no loss in it is bad."""
        self.read()
        self.history.seconds = time.perf_counter() - self.began
        state = {"history": dataclasses.asdict(self.history), "window": self.window.numbers}
        store.save(self.model, self.optimizers, state)

    def show(self, last: bool = False) -> None:
        """Call the watcher, at most twice a second. Its mistakes are reported; they end the watching, not the run."""
        if self.watch is None or not (last or time.perf_counter() - self.shown > 0.5):
            return
        try:
            self.watch(self.history)
            if last and self.close is not None:
                self.close(self.history)
        except Exception as error:
            self.watch = None
            message = f"watch failed ({type(error).__name__}: {error}); training goes on without it."
            warnings.warn(message, RuntimeWarning, stacklevel=3)
        self.shown = time.perf_counter()

    @contextlib.contextmanager
    def patience(self) -> Iterator[None]:
        """Ctrl-C waits for the step in hand to end, so that what is kept is consistent. A second one does not wait."""

        def handle(*_: object) -> None:
            if self.stop or not self.inside:
                raise KeyboardInterrupt
            self.stop = True

        # Only the main thread may set a handler, and one that somebody else has set is theirs to keep.
        main = threading.current_thread() is threading.main_thread()
        if not main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
            yield
            return
        signal.signal(signal.SIGINT, handle)
        try:
            yield
        finally:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def fit(
    model: nn.Module,
    batches: Batches,
    config: TrainConfig,
    *,
    checkpoint: Path | None = None,
    evaluate: Callable[[nn.Module], dict[str, float]] | None = None,
    watch: Callable[[History], None] | None = None,
) -> History:
    """Train ``model`` in place for ``config.steps`` steps and return what happened.

    ``model(batch)`` returns a dict of scalars with "loss", a mean over the examples of the batch.
    ``batches(step, generator)`` draws the global batch of a step; all its randomness comes from ``generator``.
    ``checkpoint`` names a file. A run that was killed or interrupted resumes from it when the same call is made again;
    on a CPU it ends with the same bits. What a model keeps besides parameters and buffers is not in it. The file goes
    when the run is complete.
    ``evaluate(model)`` is called in evaluation mode without gradients, in every process, and adds to the row.
    ``watch(history)`` is called after rows, at most twice a second, and at the end, in the first process; then
    ``watch.close(history)``, if it exists. The default is a line in a terminal and nothing elsewhere.

    Under ``torchrun`` each process takes the share ``[rank::world]`` of every batch. The loss curve stays that of one
    process as far as the loss is a plain mean over examples: batch norm, and losses that compare the examples of a
    batch, see only the share. The same holds for the pieces of ``accumulate``.

    Ctrl-C finishes the step in hand and returns the history with ``interrupted=True``. The model is left in evaluation
    mode, on the device it was trained on. The global torch seed is set anew in every step.

    Raises CourseError for wrong arguments and for a checkpoint of another run, DivergedError for a NaN or infinite
    loss.
    """
    _check(model, batches, config)
    run = _Run(model, batches, config, evaluate, watch)
    store = Checkpoint(checkpoint, config.checkpoint_seconds, fingerprint(model, config))
    history, finished, started = run.history, False, False

    def due(every: int) -> bool:
        return history.steps == config.steps or (every > 0 and history.steps > 0 and history.steps % every == 0)

    try:
        run.start(store)
        started = True
        with run.patience():
            while True:  # rows and checkpoints come before the step, so that a resumed run makes up for a missed one
                measure = evaluate is not None and due(config.evaluate_every)
                new = not history.rows or history.rows[-1]["step"] < history.steps
                if new and (measure or history.steps == 1 or due(run.every)):
                    run.row(measure)
                    run.show()
                # Reading is a meeting of all processes; only rows are at the same step for everyone.
                if run.world == 1 and time.perf_counter() - run.last_read > 1:
                    run.read()  # a diverged run shall not go on for long
                if store.due() and (run.world == 1 or not run.window.tensors):
                    run.save(store)
                if history.steps == config.steps:
                    break
                run.step()
        finished = True
    except DivergedError:
        raise
    except (KeyboardInterrupt, Exception) as error:
        # What was learned is kept, whatever stopped the run; but not half a step, and not without the other processes.
        if started and not run.inside and run.world == 1:
            run.save(store)
        if not isinstance(error, KeyboardInterrupt) or not started or run.world > 1:
            raise
        history.interrupted = True
        if not run.inside and run.window.numbers:
            run.row(measure=False)
    finally:
        store.release(finished)
        run.show(last=True)
        model.zero_grad()
        model.eval()
    return history
