"""The training loop: what it promises on good days, and what it does when killed, interrupted, full or diverged."""

import dataclasses
import errno
import importlib.util
import io
import json
import math
import os
import signal
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
import torch
from torch import nn

from pfmcourse import train
from pfmcourse.base import CourseError
from pfmcourse.train import DivergedError, History, TrainConfig, fit

SCRIPT = Path(__file__).parent / "train_scripts" / "tiny.py"
_spec = importlib.util.spec_from_file_location("tiny", SCRIPT)
tiny = sys.modules["tiny"] = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(tiny)
CONFIG = tiny.CONFIG


class Line(nn.Module):
    """One number to learn; ``inject`` maps a step to what happens in its forward."""

    def __init__(self, inject=None):
        super().__init__()
        self.slope = nn.Parameter(torch.zeros(1))
        self.inject = inject or (lambda calls, loss: loss)
        self.calls = 0

    def forward(self, batch):
        self.calls += 1
        return {"loss": self.inject(self.calls, ((batch * self.slope - 3 * batch) ** 2).mean())}


def numbers(step, generator):
    return torch.randn(8, generator=generator)


def same(one: nn.Module, other: nn.Module) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def learned(history: History) -> list[dict[str, float]]:
    """The rows without the clock."""
    return [{name: value for name, value in row.items() if name != "seconds"} for row in history.rows]


def raise_at(step, error):
    def drawn(now, generator):
        if now == step:
            raise error
        return tiny.batches(now, generator)

    return drawn


def spy_on_optimizers(monkeypatch) -> list[torch.optim.Optimizer]:
    """A list that the optimizers of the next run enter."""
    made = []
    original = train.make_optimizers

    def spy(model, config):
        made.extend(original(model, config))
        return made

    monkeypatch.setattr(train, "make_optimizers", spy)
    return made


# Learning ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_overfits_one_batch(optimizer):
    batch = tiny.batches(0, torch.Generator().manual_seed(3))
    config = TrainConfig(steps=150, learning_rate=0.03, optimizer=optimizer, precision="fp32")
    history = fit(tiny.tiny(), lambda step, generator: batch, config)
    assert history.rows[0]["loss"] > 2.0
    assert history.rows[-1]["loss"] < 0.02
    assert history.rows[-1]["accuracy"] == 1.0


def test_muon_takes_hidden_matrices_and_adamw_the_rest():
    class Network(tiny.Tiny):
        def __init__(self):
            super().__init__()
            self.attention = nn.MultiheadAttention(8, 2)
            self.patch_embed = nn.Linear(3, 8)
            self.position = nn.Parameter(torch.zeros(5, 8))
            self.mask_token = nn.Parameter(torch.zeros(1, 8))
            self.unembed = nn.Linear(8, 12, bias=False)
            self.words = nn.Embedding(12, 8)
            self.bags = nn.EmbeddingBag(12, 8)
            self.decoder = nn.Linear(8, 12, bias=False)
            self.decoder.weight = self.embedding.weight
            self.frozen = nn.Linear(8, 8).requires_grad_(False)

    network = Network()
    hidden = train.hidden_matrices(network)
    assert set(hidden) == {"hidden.weight", "attention.in_proj_weight", "attention.out_proj.weight"}
    muon, adamw = train.make_optimizers(network, TrainConfig(steps=1, optimizer="muon", weight_decay=0.1))
    assert {id(p) for p in muon.param_groups[0]["params"]} == {id(p) for p in hidden.values()}
    decayed, plain = adamw.param_groups
    assert decayed["weight_decay"] == 0.1
    assert plain["weight_decay"] == 0.0
    assert all(p.ndim == 1 for p in plain["params"])
    sorted_out = [p for group in (*muon.param_groups, decayed, plain) for p in group["params"]]
    assert {id(p) for p in sorted_out} == {id(p) for p in network.parameters() if p.requires_grad}
    assert len(sorted_out) == len({id(p) for p in sorted_out})


def test_a_model_can_name_its_hidden_matrices():
    model = tiny.tiny()
    model.hidden_matrices = lambda: [model.lm_head.weight]
    assert list(train.hidden_matrices(model)) == ["lm_head.weight"]
    model.hidden_matrices = lambda: [model.lm_head.weight, model.norm.weight]
    with pytest.raises(CourseError, match="two axes"):
        train.hidden_matrices(model)
    model.hidden_matrices = lambda: [nn.Parameter(torch.zeros(2, 2))]
    with pytest.raises(CourseError, match="of this model"):
        train.hidden_matrices(model)


def test_muon_without_hidden_matrix_says_so():
    with pytest.raises(CourseError, match="optimizer='adamw'"):
        fit(Line(), numbers, TrainConfig(steps=1, optimizer="muon"))


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_accumulation_does_not_change_the_result(optimizer):
    config = dataclasses.replace(CONFIG, optimizer=optimizer, steps=20)
    whole, pieces = tiny.tiny(), tiny.tiny()
    one = fit(whole, tiny.batches, config)
    four = fit(pieces, tiny.batches, dataclasses.replace(config, accumulate=4))
    assert one.units == four.units == 20 * 16
    torch.testing.assert_close(one.curve()[1], four.curve()[1], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(one.curve("accuracy")[1], four.curve("accuracy")[1])
    # Muon turns gradients into orthogonal matrices in bf16, which magnifies the last digit.
    tolerance = 1e-5 if optimizer == "adamw" else 5e-3
    for ours, theirs in zip(whole.parameters(), pieces.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize(("clip", "expected"), [(0.0, 6.0), (10.0, 6.0), (0.5, 0.5)])
def test_clip_bounds_the_gradient(monkeypatch, clip, expected):
    made = spy_on_optimizers(monkeypatch)
    model = Line()
    config = TrainConfig(steps=1, clip=clip, precision="fp32", betas=(0.0, 0.0))
    fit(model, lambda step, generator: torch.ones(4), config)
    # With betas of 0 AdamW's running mean is the last gradient itself: 2 * (0 - 3).
    assert made[0].state[model.slope]["exp_avg"].abs().item() == pytest.approx(expected, rel=1e-4)


def test_same_seed_same_curve_other_seed_another():
    config = dataclasses.replace(CONFIG, steps=15)
    first, second = (learned(fit(tiny.tiny(0.3), tiny.batches, config)) for _ in range(2))
    assert first == second
    assert first != learned(fit(tiny.tiny(0.3), tiny.batches, dataclasses.replace(config, seed=1)))


def test_randomness_of_a_step_depends_on_seed_and_step_alone():
    def draws(start):
        seen = {}

        def drawn(step, generator):
            seen[step] = (torch.randn(3, generator=generator).tolist(), torch.randn(3).tolist())
            torch.randn(start + 5, generator=generator)
            return torch.ones(4)

        torch.manual_seed(start)
        fit(Line(), drawn, TrainConfig(steps=4, precision="fp32"))
        return seen

    first, second = draws(0), draws(1)
    assert first == second
    values = [tuple(value) for pair in first.values() for value in pair]
    assert len(set(values)) == len(values) == 8


def test_schedule():
    config = TrainConfig(steps=100, warmup=0.1, final=0.2)
    assert train.schedule(config, 0) == pytest.approx(0.1)
    assert train.schedule(config, 9) == pytest.approx(1.0)
    assert train.schedule(config, 10) == pytest.approx(1.0)
    assert train.schedule(config, 55) == pytest.approx(0.6)
    assert train.schedule(config, 100) == pytest.approx(0.2)
    cosine = dataclasses.replace(config, decay="cosine")
    assert train.schedule(cosine, 55) == pytest.approx(0.6)
    assert train.schedule(cosine, 32) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi * 22 / 90)) / 2)
    constant = dataclasses.replace(config, decay="constant", warmup=0.0)
    assert {train.schedule(constant, step) for step in range(100)} == {1.0}
    assert train.schedule(dataclasses.replace(config, warmup=1.0), 99) == 1.0
    assert train.schedule(TrainConfig(steps=1), 0) == 1.0


def test_rates_reach_the_optimizers(monkeypatch):
    made = spy_on_optimizers(monkeypatch)
    config = TrainConfig(steps=10, learning_rate=0.01, optimizer="muon", muon_learning_rate=0.05, warmup=0.0)
    history = fit(tiny.tiny(), tiny.batches, config)
    muon, adamw = made
    assert muon.param_groups[0]["lr"] == pytest.approx(0.05 * 0.1)
    assert adamw.param_groups[0]["lr"] == pytest.approx(0.01 * 0.1)
    assert history.curve("learning_rate")[1] == pytest.approx([0.01 * (1 - step / 10) for step in range(10)])


# What is recorded ----------------------------------------------------------------------------------------------------


def test_rows_are_means_and_the_last_step_is_logged():
    model, losses = tiny.tiny(), []
    model.register_forward_hook(lambda module, inputs, output: losses.append(output["loss"].item()))
    history = fit(model, tiny.batches, dataclasses.replace(CONFIG, steps=10, log_every=4))
    assert [row["step"] for row in history.rows] == [1, 4, 8, 10]
    expected = [losses[0], sum(losses[1:4]) / 3, sum(losses[4:8]) / 4, sum(losses[8:]) / 2]
    assert history.curve()[1] == pytest.approx(expected)
    seconds = history.curve("seconds")[1]
    assert seconds == sorted(seconds)
    assert history.steps == history.planned == 10
    assert not history.interrupted
    assert history.resumed_at is None
    assert not model.training


def test_about_two_hundred_rows():
    assert len(fit(Line(), numbers, TrainConfig(steps=450, precision="fp32")).rows) == 226


def test_history_measures_and_survives_json(tmp_path):
    history = fit(tiny.tiny(), tiny.batches, dataclasses.replace(CONFIG, unit="words", units_per_step=160))
    assert history.units == 60 * 160
    assert history.unit == "words"
    assert history.units_per_second == pytest.approx(history.units / history.seconds)
    assert 50 < history.peak_memory_mb < 50_000
    assert (history.device, history.processes, history.precision) == ("cpu", 1, "fp32")
    history.save(tmp_path / "history.json")
    assert History.load(tmp_path / "history.json") == history
    assert History.from_json(history.to_json()) == history


def test_evaluate_is_called_quietly_and_when_due():
    modes = []

    def evaluate(model):
        modes.append((model.training, torch.is_grad_enabled()))
        torch.randn(100)  # must not shift the randomness of the run
        return tiny.evaluate(model)

    config = dataclasses.replace(CONFIG, steps=25, evaluate_every=10)
    history = fit(tiny.tiny(0.2), tiny.batches, config, evaluate=evaluate)
    assert history.curve("test_loss")[0] == [10, 20, 25]
    assert modes == [(False, False)] * 3
    at_end = fit(tiny.tiny(0.2), tiny.batches, dataclasses.replace(config, evaluate_every=0), evaluate=evaluate)
    assert at_end.curve("test_loss")[0] == [25]
    assert at_end.curve("test_loss")[1][-1] == history.curve("test_loss")[1][-1]


def test_time_in_evaluate_is_not_training(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(train.time, "perf_counter", lambda: clock[0])

    def drawn(step, generator):
        clock[0] += 1
        return numbers(step, generator)

    def evaluate(model):
        clock[0] += 1000
        return {"x": 1.0}

    history = fit(Line(), drawn, TrainConfig(steps=8, evaluate_every=2, precision="fp32"), evaluate=evaluate)
    assert history.seconds == 8
    assert history.units_per_second == 8


def test_evaluate_must_not_take_a_name_twice():
    with pytest.raises(CourseError, match="loss, which the row holds already"):
        fit(Line(), numbers, TrainConfig(steps=2, precision="fp32"), evaluate=lambda model: {"loss": 1.0})


class Watch:
    def __init__(self, error=None):
        self.steps, self.closed, self.error = [], [], error

    def __call__(self, history):
        self.steps.append(history.steps)
        if self.error:
            raise self.error

    def close(self, history):
        self.closed.append(history.steps)


def test_watch_sees_at_most_two_rows_a_second_and_the_end(monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(train.time, "perf_counter", lambda: clock[0])

    def drawn(step, generator):
        clock[0] += 0.2
        return numbers(step, generator)

    watch = Watch()
    fit(Line(), drawn, TrainConfig(steps=10, log_every=1, precision="fp32"), watch=watch)
    assert watch.steps == [1, 4, 7, 10, 10]
    assert watch.closed == [10]


def test_a_failing_watch_is_reported_and_training_goes_on():
    watch = Watch(ZeroDivisionError("in the plot"))
    with pytest.warns(RuntimeWarning, match="ZeroDivisionError: in the plot.*goes on") as caught:
        history = fit(Line(), numbers, TrainConfig(steps=5, precision="fp32"), watch=watch)
    assert history.steps == 5
    assert watch.steps == [1]
    assert len([warning for warning in caught if "watch failed" in str(warning.message)]) == 1


def test_a_line_in_a_terminal_and_nothing_elsewhere(monkeypatch):
    class Terminal(io.StringIO):
        def isatty(self):
            return True

    for stream, expected in ((Terminal(), True), (io.StringIO(), False)):
        monkeypatch.setattr(sys, "stderr", stream)
        monkeypatch.setenv("TERM", "xterm")
        fit(Line(), numbers, TrainConfig(steps=5, unit="numbers", precision="fp32"))
        assert ("numbers/s" in stream.getvalue() and "5/5" in stream.getvalue()) == expected
        assert bool(stream.getvalue()) == expected


# Machine -------------------------------------------------------------------------------------------------------------


def test_device_can_be_chosen(monkeypatch):
    monkeypatch.setenv("PFMCOURSE_DEVICE", "cpu")
    assert train.device() == torch.device("cpu")
    monkeypatch.setenv("PFMCOURSE_DEVICE", "abacus")
    with pytest.raises(CourseError, match="'abacus', but this machine offers: cpu"):
        train.device()


def test_seed_everything():
    import random

    import numpy

    def draw():
        train.seed_everything(5)
        return random.random(), numpy.random.rand(), torch.rand(1).item()  # noqa: NPY002

    assert draw() == draw()


def test_bf16_is_measured_once_and_used():
    train.bf16_is_faster.cache_clear()
    answer = train.bf16_is_faster("cpu")
    assert train.bf16_is_faster("cpu") is answer
    assert train.bf16_is_faster.cache_info().misses == 1
    seen = []
    for precision in ("auto", "bf16", "fp32"):
        model = tiny.tiny()
        model.hidden.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
        history = fit(model, tiny.batches, TrainConfig(steps=2, precision=precision))
        bf16 = {"auto": answer, "bf16": True, "fp32": False}[precision]
        assert history.precision == ("bf16" if bf16 else "fp32")
        assert seen[-2:] == [torch.bfloat16 if bf16 else torch.float32] * 2
    assert all(parameter.dtype == torch.float32 for parameter in model.parameters())


def test_auto_precision_follows_the_measurement(monkeypatch):
    for answer, precision in ((True, "bf16"), (False, "fp32")):
        monkeypatch.setattr(train, "bf16_is_faster", lambda kind, answer=answer: answer)
        assert fit(tiny.tiny(), tiny.batches, TrainConfig(steps=1)).precision == precision


# Stopping and resuming -----------------------------------------------------------------------------------------------


def environment():
    return os.environ | {"OMP_NUM_THREADS": "1", "PFMCOURSE_OFFLINE": "1", "PFMCOURSE_DEVICE": "cpu"}


@pytest.mark.parametrize("optimizer", ["adamw", "muon"])
def test_killed_run_resumes_with_the_same_bits(tmp_path, optimizer):
    command = [sys.executable, SCRIPT, "killed", tmp_path, optimizer]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment()) as process:
        for line in process.stdout:
            if int(line) == 33:
                process.kill()
                break
        process.wait()
    assert process.returncode != 0
    assert not (tmp_path / "history.json").exists()
    with pytest.MonkeyPatch.context() as patch:  # the second sitting in this process saves an import of torch
        patch.setenv("PFMCOURSE_DEVICE", "cpu")
        tiny.killed(tmp_path, optimizer)
        model = tiny.tiny(0.2)
        straight = fit(model, tiny.batches, dataclasses.replace(CONFIG, optimizer=optimizer), evaluate=tiny.evaluate)
    resumed = History.load(tmp_path / "history.json")
    assert resumed.resumed_at >= 33
    assert resumed.resumed_at < 60
    assert learned(resumed) == learned(straight)
    weights = torch.load(tmp_path / "weights.pt", weights_only=True)
    assert all(torch.equal(weights[name], tensor) for name, tensor in model.state_dict().items())
    assert not (tmp_path / "run.safetensors").exists()


@pytest.mark.parametrize("interval", [0.0, 1000.0])
@pytest.mark.parametrize("step", [1, 14, 23, 59])
def test_interrupted_then_resumed_equals_uninterrupted(tmp_path, step, interval):
    config = dataclasses.replace(CONFIG, checkpoint_seconds=interval)
    straight_model, model = tiny.tiny(0.2), tiny.tiny(0.2)
    straight = fit(straight_model, tiny.batches, config, evaluate=tiny.evaluate)
    path = tmp_path / "deep" / "run.safetensors"
    first = fit(model, raise_at(step, KeyboardInterrupt()), config, checkpoint=path, evaluate=tiny.evaluate)
    assert first.interrupted
    assert first.steps == first.rows[-1]["step"] == step
    other = tiny.tiny(0.2, seed=9)  # whatever the weights were, the checkpoint's count
    second = fit(other, tiny.batches, config, checkpoint=path, evaluate=tiny.evaluate)
    assert second.resumed_at == step
    assert not second.interrupted
    assert second.curve("seconds")[1] == sorted(second.curve("seconds")[1])
    assert second.units == straight.units
    assert learned(second) == learned(straight)
    assert same(other, straight_model)
    assert list(path.parent.iterdir()) == []


@pytest.mark.parametrize("place", ["forward", "evaluate", "watch"])
def test_ctrl_c_anywhere_keeps_a_whole_step(tmp_path, place):
    straight_model, straight_config = tiny.tiny(0.2), dataclasses.replace(CONFIG, checkpoint_seconds=1000.0)
    straight = fit(straight_model, tiny.batches, straight_config, evaluate=tiny.evaluate)

    class Pressed(tiny.Tiny):
        armed = True
        calls = 0

        def forward(self, batch):
            if self.training:
                self.calls += 1
                if self.calls == 12 and self.armed and place == "forward":
                    signal.raise_signal(signal.SIGINT)
            return super().forward(batch)

    def evaluate(model):
        if model.armed and place == "evaluate":
            signal.raise_signal(signal.SIGINT)
        return tiny.evaluate(model)

    def watch(history):
        if place == "watch" and not pressed:
            pressed.append(history.steps)
            signal.raise_signal(signal.SIGINT)

    pressed = []
    torch.manual_seed(0)
    model = Pressed(0.2)
    path = tmp_path / "run.safetensors"
    handler = signal.getsignal(signal.SIGINT)
    first = fit(model, tiny.batches, straight_config, checkpoint=path, evaluate=evaluate, watch=watch)
    assert first.interrupted
    assert first.steps == {"forward": 12, "evaluate": 20, "watch": 1}[place]
    assert signal.getsignal(signal.SIGINT) is handler
    model.armed = False
    second = fit(model, tiny.batches, straight_config, checkpoint=path, evaluate=evaluate)
    assert second.resumed_at == first.steps
    assert learned(second) == learned(straight)
    assert same(model, straight_model)


def test_second_ctrl_c_does_not_wait_and_does_not_save_half_a_step(tmp_path):
    def inject(calls, loss):
        if calls == 5:
            signal.raise_signal(signal.SIGINT)
            signal.raise_signal(signal.SIGINT)
        return loss

    class Counting(Line):
        def __init__(self, inject=None):
            super().__init__(inject)
            self.register_buffer("seen", torch.zeros(1))

        def forward(self, batch):
            self.seen += 1  # changed half-way through a step
            return super().forward(batch)

    path = tmp_path / "run.safetensors"
    config = TrainConfig(steps=10, precision="fp32", checkpoint_seconds=0.0)
    history = fit(Counting(inject), numbers, config, checkpoint=path)
    assert (history.interrupted, history.steps) == (True, 4)
    model = Counting()
    assert fit(model, numbers, config, checkpoint=path).resumed_at == 4
    assert model.seen == 10


def test_an_error_between_steps_keeps_what_was_learned(tmp_path):
    path = tmp_path / "run.safetensors"
    config = dataclasses.replace(CONFIG, checkpoint_seconds=1000.0)
    with pytest.raises(OSError, match="data is gone"):
        fit(tiny.tiny(), raise_at(17, OSError("data is gone")), config, checkpoint=path)
    assert fit(tiny.tiny(), tiny.batches, config, checkpoint=path).resumed_at == 17


def test_layouts_ties_and_buffers_are_restored(tmp_path):
    class Pictures(nn.Module):
        def __init__(self):
            super().__init__()
            self.convolution = nn.Conv2d(3, 8, 3).to(memory_format=torch.channels_last)
            self.norm = nn.BatchNorm2d(8)
            self.word = nn.Embedding(8, 8)
            self.head = nn.Linear(8, 8, bias=False)
            self.head.weight = self.word.weight

        def forward(self, batch):
            hidden = self.head(self.norm(self.convolution(batch)).mean((2, 3)))
            return {"loss": (hidden - 1).square().mean()}

    def pictures(step, generator):
        return torch.randn(4, 3, 6, 6, generator=generator).to(memory_format=torch.channels_last)

    def stopped(step, generator):
        if step == 11:
            raise KeyboardInterrupt
        return pictures(step, generator)

    config = TrainConfig(steps=20, precision="fp32")
    models = []
    for _ in range(3):
        torch.manual_seed(0)
        models.append(Pictures())
    straight, halted, resumed = models
    fit(straight, pictures, config)
    path = tmp_path / "run.safetensors"
    fit(halted, stopped, config, checkpoint=path)
    fit(resumed, pictures, config, checkpoint=path)
    assert same(straight, resumed)
    assert resumed.convolution.weight.is_contiguous(memory_format=torch.channels_last)
    assert resumed.head.weight is resumed.word.weight


def test_resuming_keeps_the_precision_that_was_measured(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    config = TrainConfig(steps=10)
    monkeypatch.setattr(train, "bf16_is_faster", lambda kind: True)
    fit(tiny.tiny(), raise_at(5, KeyboardInterrupt()), config, checkpoint=path)
    monkeypatch.setattr(train, "bf16_is_faster", lambda kind: False)
    history = fit(tiny.tiny(), tiny.batches, config, checkpoint=path)
    assert (history.resumed_at, history.precision) == (5, "bf16")


def interrupted_at(step, path, config=CONFIG):
    fit(tiny.tiny(), raise_at(step, KeyboardInterrupt()), config, checkpoint=path)
    assert path.exists()


def test_checkpoint_of_another_run_is_refused(tmp_path):
    path = tmp_path / "run.safetensors"
    interrupted_at(5, path)
    before = path.read_bytes()
    with pytest.raises(CourseError, match=r"learning_rate: 0.003 there, 0.5 here.*delete the file.*resume=False"):
        fit(tiny.tiny(), tiny.batches, dataclasses.replace(CONFIG, learning_rate=0.5), checkpoint=path)
    with pytest.raises(CourseError, match="slope: None there"):
        fit(Line(), numbers, CONFIG, checkpoint=path)
    wider = tiny.tiny()
    wider.hidden = nn.Linear(8, 8, bias=False)
    with pytest.raises(CourseError, match=r"hidden\.bias"):
        fit(wider, tiny.batches, CONFIG, checkpoint=path)
    assert path.read_bytes() == before
    # How often to write does not change what is learned. The lock was given back by the runs that failed.
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        later = dataclasses.replace(CONFIG, checkpoint_seconds=7.0)
        assert fit(tiny.tiny(), tiny.batches, later, checkpoint=path).resumed_at == 5


@pytest.mark.parametrize("damage", ["half", "empty", "words", "foreign"])
def test_a_damaged_checkpoint_is_a_warning_and_a_fresh_start(tmp_path, damage):
    from safetensors.torch import save_file

    path = tmp_path / "run.safetensors"
    interrupted_at(5, path)
    content = path.read_bytes()
    path.write_bytes({"half": content[: len(content) // 2], "empty": b"", "words": b"hello"}.get(damage, content))
    if damage == "foreign":
        save_file({"model.slope": torch.zeros(1)}, path)
    with pytest.warns(RuntimeWarning, match="damaged.*starts anew"):
        history = fit(tiny.tiny(), tiny.batches, CONFIG, checkpoint=path)
    assert history.resumed_at is None
    assert learned(history) == learned(fit(tiny.tiny(), tiny.batches, CONFIG))


def test_the_checkpoint_is_one_readable_file(tmp_path):
    from safetensors import safe_open

    path = tmp_path / "run.safetensors"
    interrupted_at(5, path)
    assert [file.name for file in tmp_path.iterdir() if file.suffix != ".lock"] == ["run.safetensors"]
    with safe_open(path, framework="pt") as file:
        state = json.loads(file.metadata()["pfmcourse"])["state"]
        assert state["history"]["steps"] == 5
        assert file.get_tensor("model.hidden.weight").shape == (8, 8)


def test_two_runs_at_one_checkpoint(tmp_path):
    path = tmp_path / "run.safetensors"
    other = {}

    def drawn(step, generator):
        if step == 9:
            held = path.read_bytes()
            with pytest.warns(RuntimeWarning, match=r"another run is training to .*run.safetensors"):
                other["history"] = fit(tiny.tiny(seed=4), tiny.batches, CONFIG, checkpoint=path)
            assert path.read_bytes() == held
        return tiny.batches(step, generator)

    history = fit(tiny.tiny(), drawn, CONFIG, checkpoint=path)
    assert history.steps == 60
    assert other["history"].steps == 60
    assert other["history"].resumed_at is None
    assert not path.exists()


def test_a_full_disk_does_not_stop_training(tmp_path, monkeypatch):
    path = tmp_path / "run.safetensors"
    interrupted_at(5, path)
    before = path.read_bytes()

    def full(tensors, filename, metadata):
        Path(filename).write_bytes(b"the first half of it")
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr("safetensors.torch.save_file", full)
        with pytest.warns(RuntimeWarning, match=r"could not write .*run.safetensors.*bytes are free") as caught:
            history = fit(tiny.tiny(), raise_at(20, KeyboardInterrupt()), CONFIG, checkpoint=path)
    assert len(caught) == 1
    assert history.steps == 20
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir() if file.suffix == ".part"] == []
    assert fit(tiny.tiny(), tiny.batches, CONFIG, checkpoint=path).resumed_at == 5


def test_a_really_full_disk(tmp_path):
    if not sys.platform.startswith("linux") or os.geteuid() != 0:
        pytest.skip("mounting a tiny disk needs root on Linux; the test before this one plays a full disk everywhere")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this machine does not let root mount a tiny disk: {mounted.stderr.strip()}")
    try:
        path = disk / "run.safetensors"
        interrupted_at(5, path)
        before = path.read_bytes()
        filler = disk / "filler"
        with pytest.raises(OSError, match=os.strerror(errno.ENOSPC)), filler.open("wb", buffering=0) as file:
            while True:
                file.write(bytes(1024))
        with pytest.warns(RuntimeWarning, match=r"could not write .*run.safetensors.*bytes are free") as caught:
            fit(tiny.tiny(), raise_at(20, KeyboardInterrupt()), CONFIG, checkpoint=path)
        assert len(caught) == 1
        assert path.read_bytes() == before
        filler.unlink()
        history = fit(tiny.tiny(), tiny.batches, CONFIG, checkpoint=path)
        assert (history.resumed_at, history.steps) == (5, 60)
        assert not path.exists()
    finally:
        busy = subprocess.run(["umount", disk], capture_output=True).returncode
        if busy:
            subprocess.run(["umount", "--lazy", disk], check=True)
    assert not busy, "the run still holds a file on that disk"


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_divergence_names_the_step_and_saves_nothing_after_it(tmp_path, bad, accumulate):
    def inject(calls, loss):
        return loss * bad if math.ceil(calls / accumulate) >= 13 else loss

    path = tmp_path / "run.safetensors"
    config = TrainConfig(
        steps=40, precision="fp32", log_every=30, checkpoint_seconds=0.0, accumulate=accumulate, warmup=0.0
    )
    with pytest.raises(DivergedError, match=r"step 13 of 40.*0.0021\. Try a third.*clip") as caught:
        fit(Line(inject), numbers, config, checkpoint=path)
    assert isinstance(caught.value, CourseError)
    history = fit(Line(), numbers, config, checkpoint=path)
    assert history.resumed_at == 12


def test_divergence_is_found_at_the_end_without_a_checkpoint():
    model = Line(lambda calls, loss: loss * math.nan if calls == 7 else loss)
    with pytest.raises(DivergedError, match="step 7 of 40"):
        fit(model, numbers, TrainConfig(steps=40, precision="fp32", log_every=40))


# Many processes ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_learn_what_one_learns(tmp_path):
    launch = ["-m", "torch.distributed.run", "--nproc-per-node", "2", "--master-addr", "127.0.0.1"]
    launch += ["--master-port", "0", "--rdzv-backend", "c10d", "--rdzv-endpoint", "127.0.0.1:0"]
    command = [sys.executable, *launch, SCRIPT, "joined", tmp_path]
    result = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)
    assert result.returncode == 0, result.stderr
    assert "arning" not in result.stderr
    assert result.stdout.count("left in order") == 2
    model = tiny.tiny()
    alone = fit(model, tiny.batches, CONFIG, evaluate=tiny.evaluate)
    first, second = (History.load(tmp_path / f"history{rank}.json") for rank in range(2))
    assert first.processes == second.processes == 2
    assert first.units == alone.units
    # The last checkpoint before step 30 was written at a row, for only there all processes are known to be in step.
    assert first.resumed_at == second.resumed_at == 28
    for history in (first, second):
        for name in ("loss", "accuracy", "test_loss", "learning_rate"):
            assert history.curve(name)[0] == alone.curve(name)[0]
            torch.testing.assert_close(history.curve(name)[1], alone.curve(name)[1], rtol=1e-5, atol=1e-5)
    for rank in range(2):
        weights = torch.load(tmp_path / f"weights{rank}.pt", weights_only=True)
        for name, tensor in model.state_dict().items():
            torch.testing.assert_close(weights[name], tensor, rtol=1e-4, atol=1e-4)
    assert sorted(file.name for file in tmp_path.iterdir()) == [
        "history0.json", "history1.json", "weights0.pt", "weights1.pt"
    ]  # fmt: skip


def test_shares_of_a_batch():
    batch = {"a": (torch.arange(8), [torch.arange(8) * 10]), "b": tiny.Pairs(torch.arange(8), {}), "n": 3}
    pieces = [piece for rank in range(2) for piece in train._pieces(batch, rank, 2, 2)]
    assert all(piece["n"] == 3 and piece["b"].title == "not a tensor" for piece in pieces)
    assert all(torch.equal(piece["a"][0] * 10, piece["a"][1][0]) for piece in pieces)
    assert all(torch.equal(piece["a"][0], piece["b"].words) for piece in pieces)
    assert sorted(torch.cat([piece["a"][0] for piece in pieces]).tolist()) == list(range(8))
    shares = [torch.cat([piece["a"][0] for piece in train._pieces(batch, rank, 2, 2)]) for rank in range(2)]
    assert [sorted(share.tolist()) for share in shares] == [[0, 2, 4, 6], [1, 3, 5, 7]]


def test_map_tensors_keeps_the_kinds_of_containers():
    from collections import namedtuple

    Point = namedtuple("Point", "x y")
    tree = (Point(torch.ones(2), "y"), [torch.ones(2)], {"k": torch.tensor(3.0)}, tiny.Pairs(torch.ones(2), {}), None)
    doubled = train.map_tensors(tree, lambda tensor: tensor * 2)
    assert isinstance(doubled[0], Point)
    assert torch.equal(doubled[0].x, torch.full((2,), 2.0))
    assert isinstance(doubled[1], list)
    assert doubled[2]["k"] == 6
    assert torch.equal(doubled[3].words, torch.full((2,), 2.0))
    assert doubled[4] is None
    assert torch.equal(tree[1][0], torch.ones(2))


# Wrong input ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("steps", 0), ("steps", 2.5), ("learning_rate", 0.0), ("learning_rate", math.nan), ("optimizer", "sgd"),
        ("muon_learning_rate", -1.0), ("weight_decay", -0.1), ("betas", (0.9, 1.0)), ("betas", (0.9,)), ("warmup", 1.5),
        ("decay", "exponential"), ("final", -0.1), ("clip", -1.0), ("accumulate", 0), ("precision", "fp16"),
        ("units_per_step", -1), ("log_every", -1), ("evaluate_every", -5), ("checkpoint_seconds", -1.0),
    ],
)  # fmt: skip
def test_wrong_configuration_is_named_before_any_work(field, value):
    def never(step, generator):
        raise AssertionError("work was done")

    with pytest.raises(CourseError, match=rf"{field}.* wants "):
        fit(Line(), never, dataclasses.replace(TrainConfig(steps=3), **{field: value}))


@pytest.mark.parametrize(
    ("model", "batches", "config", "message"),
    [
        (Line(), numbers, {"steps": 3}, "TrainConfig, but got dict"),
        (numbers, numbers, TrainConfig(steps=1), "torch.nn.Module, but got function"),
        (Line(), [torch.ones(2)], TrainConfig(steps=1), "batches wants a function"),
        (Line().requires_grad_(False), numbers, TrainConfig(steps=1), "no trainable parameter"),
        (Line(), numbers, TrainConfig(steps=1, accumulate=3), "have 8 rows.*3 divides"),
        (Line(), lambda *_: (torch.ones(4), torch.ones(2)), TrainConfig(steps=1, accumulate=2), "have 2 and 4 rows"),
        (Line(lambda calls, loss: loss.detach()), numbers, TrainConfig(steps=1), "depends on no trainable parameter"),
        (Line(lambda calls, loss: loss * torch.ones(2)), numbers, TrainConfig(steps=1), r"shape \(2,\): take its mean"),
    ],
)
def test_wrong_arguments(model, batches, config, message):
    with pytest.raises(CourseError, match=message):
        fit(model, batches, config)


@pytest.mark.parametrize(
    ("output", "message"),
    [("loss", "returned str"), ({"error": 1}, r"the keys \['error'\]"), ({"loss": "low"}, "'loss' is 'low'")],
)
def test_forward_must_return_a_loss(output, message):
    model = Line()
    model.forward = lambda batch: output
    with pytest.raises(CourseError, match=message):
        fit(model, numbers, TrainConfig(steps=1, precision="fp32"))


def test_the_usual_rate_ignores_a_hiccup():
    rows = [
        {"step": step, "seconds": seconds} for step, seconds in ((1, 0.5), (11, 1.5), (21, 2.5), (31, 60.0), (41, 61.0))
    ]
    history = train.History(rows=rows, steps=41, units=41 * 8, seconds=61.0, units_per_second=41 * 8 / 61)
    assert history.usual_rate() == pytest.approx(80)
    assert train.History(rows=rows[:1], steps=1, units=8, units_per_second=16.0).usual_rate() == 16
