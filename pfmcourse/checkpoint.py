"""A training run's state on disk: written so that a killed run can go on exactly where it stopped."""

import contextlib
import dataclasses
import json
import shutil
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import filelock
import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from pfmcourse.base import CourseError, write_atomically

if TYPE_CHECKING:
    from pfmcourse.train import TrainConfig


class Checkpoint:
    """One file that holds one consistent state: tensors as safetensors, the rest as JSON in its metadata."""

    def __init__(self, path: Path | None, seconds: float, fingerprint: dict[str, Any]):
        self.path = Path(path) if path else None
        self.seconds = seconds
        self.fingerprint = json.loads(json.dumps(fingerprint))  # tuples become lists, as they will be read back
        self.written = time.perf_counter()
        self.warned = False
        self.lock: filelock.BaseFileLock | None = None

    def acquire(self) -> bool:
        """Whether this run may use the file: not if another live process trains to it."""
        if self.path is None:
            return False
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self.lock = filelock.FileLock(self.path.with_name(f".{self.path.name}.lock"))
            self.lock.acquire(timeout=0)
        except filelock.Timeout:
            self._warn(f"another run is training to {self.path} right now. This one goes on without checkpoints.")
        except OSError as error:
            self._warn(f"no checkpoint can be written to {self.path} ({error}). This run goes on without.")
        else:
            return True
        self.path = self.lock = None
        return False

    def release(self, finished: bool) -> None:
        """Give the lock back; the file of a finished run has done its work and goes."""
        if self.lock is not None:
            if finished:
                self.path.unlink(missing_ok=True)
            self.lock.release()
            if finished:
                with contextlib.suppress(OSError):  # another run may just have opened it
                    Path(self.lock.lock_file).unlink(missing_ok=True)

    def due(self) -> bool:
        """Whether it is time to write."""
        return self.lock is not None and time.perf_counter() - self.written >= self.seconds

    def save(self, model: nn.Module, optimizers: list[torch.optim.Optimizer], state: dict[str, Any]) -> None:
        """Write the state of the run. A full disk is a warning; the file that was there before stays."""
        if self.lock is None:
            return
        tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
        for number, optimizer in enumerate(optimizers):
            for index, values in optimizer.state_dict()["state"].items():
                tensors |= {f"optimizer.{number}.{index}.{name}": tensor for name, tensor in values.items()}
        # Copies, because safetensors takes neither tied tensors nor other memory layouts.
        tensors = {
            name: tensor.detach().to("cpu", copy=True).contiguous(memory_format=torch.contiguous_format)
            for name, tensor in tensors.items()
        }
        document = json.dumps({"fingerprint": self.fingerprint, "state": state})
        try:
            with write_atomically(self.path) as temporary:
                safetensors.torch.save_file(tensors, temporary, metadata={"pfmcourse": document})
        except (OSError, safetensors.SafetensorError) as error:
            free = shutil.disk_usage(self.path.parent).free
            self._warn(
                f"could not write the checkpoint {self.path} ({error}); {free:,} bytes are free there. Training goes "
                "on and the last good checkpoint stays. Make room on that disk; the next attempt comes by itself."
            )
        self.written = time.perf_counter()

    def load(self, model: nn.Module, optimizers: list[torch.optim.Optimizer]) -> dict[str, Any] | None:
        """Restore model and optimizers in place and return the state; None where there is nothing (good) to resume."""
        if self.path is None or not self.path.exists():
            return None
        try:
            with safetensors.safe_open(self.path, framework="pt") as file:
                document = json.loads(file.metadata()["pfmcourse"])
                fingerprint, state = document["fingerprint"], document["state"]
                # Copies, because the tensors of an open file keep it mapped, and Windows would not let it be replaced.
                tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
        except (OSError, safetensors.SafetensorError, KeyError, TypeError, ValueError) as error:
            self._warn(f"the checkpoint {self.path} is damaged ({error}). Training starts anew.", once=False)
            return None
        self._compare(fingerprint)
        model.load_state_dict({name[6:]: tensor for name, tensor in tensors.items() if name.startswith("model.")})
        for number, optimizer in enumerate(optimizers):
            parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
            values: dict[int, dict[str, Tensor]] = {}
            for name, tensor in tensors.items():
                kind, *rest = name.split(".", 3)
                if kind == "optimizer" and int(rest[0]) == number:
                    parameter = parameters[int(rest[1])]
                    if tensor.shape == parameter.shape:  # in the parameter's memory layout, which fused kernels rely on
                        tensor = torch.empty_like(parameter, dtype=tensor.dtype).copy_(tensor)
                    values.setdefault(int(rest[1]), {})[rest[2]] = tensor
            groups = optimizer.state_dict()["param_groups"]
            optimizer.load_state_dict({"state": values, "param_groups": groups})
        return state

    def _compare(self, found: dict[str, Any]) -> None:
        ours = self.fingerprint
        names = [name for name in {**ours, **found} if ours.get(name) != found.get(name)]
        if names:
            differences = "; ".join(f"{name}: {found.get(name)} there, {ours.get(name)} here" for name in names[:5])
            more = f"; and {len(names) - 5} more" if len(names) > 5 else ""
            raise CourseError(
                f"the checkpoint {self.path} belongs to another run ({differences}{more}). Repeat that run to resume "
                "it. To start anew, delete the file, or call recipes.pretrain(..., resume=False)."
            )

    def _warn(self, message: str, once: bool = True) -> None:
        if not (once and self.warned):
            warnings.warn(message, RuntimeWarning, stacklevel=4)
        self.warned = self.warned or once


def fingerprint(model: nn.Module, config: "TrainConfig") -> dict[str, Any]:
    """What must agree between a checkpoint and the run that resumes it."""
    settings = dataclasses.asdict(config)
    del settings["checkpoint_seconds"]  # does not change the result
    return settings | {name: f"{tuple(tensor.shape)} {tensor.dtype}" for name, tensor in model.state_dict().items()}
