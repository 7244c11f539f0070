"""How the benchmarks measure: in turn, in one run, as medians of paired rounds."""

import statistics
import time

import torch

from pfmcourse.train import bf16_is_faster

ROUNDS = 7


def seconds(function, rounds=1):
    began = time.perf_counter()
    for _ in range(rounds):
        function()
    return (time.perf_counter() - began) / rounds


def in_turn(functions, rounds=ROUNDS):
    """The seconds of each function in each of several rounds, after one round to warm up."""
    for function in functions.values():
        function()
    times = {name: [] for name in functions}
    for _ in range(rounds):
        for name, function in functions.items():
            times[name].append(seconds(function))
    return times


def ratio(times, slow, fast):
    return statistics.median(a / b for a, b in zip(times[slow], times[fast], strict=True))


def bf16():
    return bf16_is_faster("cpu")


def trainer(model, loss, precise):
    """One step of training: forward, backward, fused AdamW."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step():
        with torch.autocast("cpu", torch.bfloat16, enabled=not precise and bf16()):
            value = loss(model)
        value.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def matmul_flops():
    """Multiply-adds x 2 per second of the machine's own bf16 product, at its best size."""
    best = 0.0
    for size in (512, 1024, 2048):
        left, right = torch.randn(2, size, size).bfloat16()
        left @ right
        best = max(best, 2 * size**3 / seconds(lambda left=left, right=right: left @ right, 10))
    return best
