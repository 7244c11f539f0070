"""CIFAR-10: 60,000 colour photographs of 32 x 32 pixels in ten classes, for the ``gpu`` preset.

Krizhevsky (2009), "Learning Multiple Layers of Features from Tiny Images". No pip package holds these files, so they
are the one data set that must be fetched: 170 MB, once, and only when `load` is told to with ``download=True``. Reading
and checking them is the work of ``torchvision.datasets.CIFAR10``, which knows the MD5 of each file.
"""

from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import torch
from einops import rearrange
from jaxtyping import Bool, Int64, UInt8
from torch import Tensor

from pfmcourse import base
from pfmcourse.data import source


@dataclass(frozen=True)
class Cifar10:
    """Colour pictures, 0 for dark to 255 for bright, and what each one shows as an index of ``names``."""

    images: UInt8[Tensor, "pictures 3 32 32"]
    labels: Int64[Tensor, " pictures"]
    held_out: Bool[Tensor, " pictures"]  # the pictures of the test
    names: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.labels)

    def split(self, part: str) -> "Cifar10":
        """The pictures of ``train`` (50,000) or of ``test`` (10,000), as the authors divided them."""
        if part not in ("train", "test"):
            raise base.unknown_name("part", part, ("train", "test"))
        chosen = self.held_out if part == "test" else ~self.held_out
        return Cifar10(self.images[chosen], self.labels[chosen], self.held_out[chosen], self.names)


def default_folder() -> Path:
    """Where the files are looked for, and put: ``cifar10`` in the cache folder."""
    return source.cache_folder() / "cifar10"


def load(folder: Path | str | None = None, download: bool = False) -> Cifar10:
    """All 60,000 pictures, those for training first.

    ``folder`` is the one that holds ``cifar-10-batches-py``, the unpacked archive of the "python version". With
    ``download=True``, missing or altered files are fetched into it from the authors' server; else nothing touches the
    network. Raises CourseError where files are missing or cannot be fetched, and AlteredData where one differs from the
    authors'.
    """
    datasets = base.require("torchvision.datasets", "torchvision", "reading CIFAR-10")
    folder = Path(folder or default_folder())
    if download:
        _fetch(datasets, folder)
    _check(datasets, folder)
    train, test = (datasets.CIFAR10(folder, train=train) for train in (True, False))
    pixels = torch.cat([torch.from_numpy(part.data) for part in (train, test)])
    return Cifar10(
        images=rearrange(pixels, "pictures height width colours -> pictures colours height width").contiguous(),
        labels=torch.tensor([*train.targets, *test.targets]),
        held_out=torch.arange(len(pixels)) >= len(train),
        names=tuple(train.classes),
    )


def _command(folder: Path) -> str:
    """What to type so that the files are fetched into ``folder``."""
    where = "" if folder == default_folder() else f"{str(folder)!r}, "
    return f'python -c "from pfmcourse.data import cifar10; cifar10.load({where}download=True)"'


def _known(kind: type) -> dict[str, str]:
    """The files and their MD5, as torchvision knows them."""
    return dict([*kind.train_list, *kind.test_list, (kind.meta["filename"], kind.meta["md5"])])


def _fetch(datasets: ModuleType, folder: Path) -> None:
    """Download and unpack the archive, unless all files are there.

    Not by ``CIFAR10(download=True)``, which does not notice when only the file with the names is missing.
    """
    kind, intact = datasets.CIFAR10, datasets.utils.check_integrity
    if all(intact(folder / kind.base_folder / name, md5) for name, md5 in _known(kind).items()):
        return
    try:
        folder.mkdir(parents=True, exist_ok=True)
        datasets.utils.download_and_extract_archive(kind.url, folder, filename=kind.filename, md5=kind.tgz_md5)
    except (OSError, RuntimeError) as error:  # no network, no room, or an archive that arrived damaged
        raise base.CourseError(
            f"CIFAR-10 could not be fetched from {kind.url} into {folder}: {error} Try again with a network, or "
            f"fetch the file in another way, unpack it in {folder}, and call cifar10.load() without download."
        ) from error


def _check(datasets: ModuleType, folder: Path) -> None:
    """Raise unless every file is there and is the authors'. Only then may they be unpickled: a pickle can run code."""
    kind = datasets.CIFAR10
    home, known = folder / kind.base_folder, _known(kind)
    missing = [name for name in known if not (home / name).is_file()]
    if missing:
        raise base.CourseError(
            f"CIFAR-10 is not in {home}: missing {', '.join(missing)}. No package holds it, and nothing is downloaded "
            f"by itself. Fetch it once (170 MB, needs the network) with: {_command(folder)}\n"
            f"Where you have the files, name the folder that holds {kind.base_folder}: cifar10.load(folder=...). "
            "Other presets than gpu do not need it."
        )
    altered = [name for name, md5 in known.items() if not datasets.utils.check_integrity(home / name, md5)]
    if altered:
        raise source.AlteredData(
            f"files of CIFAR-10 in {home} are not the authors': {', '.join(altered)} (MD5 differs). They may have been "
            f"cut off on the way. Fetch them again with: {_command(folder)}"
        )
