import hashlib
import pickle

import numpy as np
import pytest
import torch
from torchvision.datasets import CIFAR10, utils

from pfmcourse import base
from pfmcourse.data import cifar10, source

NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


def write(folder, per_batch=4):
    """Small files in the real format: pickled dicts, a row of 3,072 bytes a picture, all red ones first, then green."""
    home = folder / "cifar-10-batches-py"
    home.mkdir(parents=True, exist_ok=True)
    random = np.random.default_rng(0)
    contents = {}
    for place, name in enumerate(BATCHES):
        pictures = random.integers(0, 256, (per_batch, 3072), dtype=np.uint8)
        contents[name] = {
            "batch_label": f"batch {place + 1}",
            "labels": [(place + row) % 10 for row in range(per_batch)],
            "data": pictures,
            "filenames": [f"{row}.png" for row in range(per_batch)],
        }
    contents["batches.meta"] = {"num_cases_per_batch": per_batch, "label_names": list(NAMES), "num_vis": 3072}
    for name, content in contents.items():
        (home / name).write_bytes(pickle.dumps(content))
    return contents


def md5(path):
    return hashlib.md5(path.read_bytes(), usedforsecurity=False).hexdigest()


@pytest.fixture
def small(tmp_path, monkeypatch):
    """A folder with a small CIFAR-10, and its contents.

    torchvision knows the MD5 of the real files. It is told those of the small ones, so its check runs as it is.
    """
    contents = write(tmp_path)
    home = tmp_path / CIFAR10.base_folder
    sums = [[name, md5(home / name)] for name in BATCHES]
    monkeypatch.setattr(CIFAR10, "train_list", sums[:5])
    monkeypatch.setattr(CIFAR10, "test_list", sums[5:])
    monkeypatch.setattr(CIFAR10, "meta", CIFAR10.meta | {"md5": md5(home / "batches.meta")})
    return tmp_path, contents


@pytest.fixture
def no_download(monkeypatch):
    monkeypatch.setattr(utils, "download_and_extract_archive", lambda *_, **__: pytest.fail("something was downloaded"))


def test_pictures_labels_and_names(small, no_download):
    folder, contents = small
    data = cifar10.load(folder)
    assert len(data) == 24 and data.names == NAMES
    rows = np.concatenate([contents[name]["data"] for name in BATCHES])
    for picture, row in zip(data.images, rows, strict=True):
        for colour in range(3):
            plane = row[1024 * colour : 1024 * (colour + 1)].reshape(32, 32)
            assert np.array_equal(picture[colour].numpy(), plane)
    assert data.labels.tolist() == [label for name in BATCHES for label in contents[name]["labels"]]


def test_the_split_is_the_authors(small):
    data = cifar10.load(small[0])
    train, test = data.split("train"), data.split("test")
    assert (len(train), len(test)) == (20, 4)
    assert torch.equal(torch.cat([train.images, test.images]), data.images)
    assert np.array_equal(test.images.flatten(1).numpy(), small[1]["test_batch"]["data"])
    assert test.held_out.all() and not train.held_out.any()
    with pytest.raises(base.UnknownName, match="Did you mean 'test'"):
        data.split("tests")


def test_missing_files_say_how_to_fetch_them_and_nothing_is_downloaded(tmp_path, monkeypatch, no_download):
    monkeypatch.setenv("PFMCOURSE_CACHE", str(tmp_path / "cache"))
    with pytest.raises(base.CourseError) as caught:
        cifar10.load()
    message = str(caught.value)
    assert str(tmp_path / "cache" / "cifar10" / "cifar-10-batches-py") in message
    assert "cifar10.load(download=True)" in message and "needs the network" in message and "folder=" in message
    assert not (tmp_path / "cache").exists()


@pytest.mark.parametrize("name", ["data_batch_3", "batches.meta"])
def test_one_missing_file_is_named(small, no_download, name):
    folder, _ = small
    (folder / CIFAR10.base_folder / name).unlink()
    with pytest.raises(base.CourseError, match=f"missing {name}[.] "):
        cifar10.load(folder)


@pytest.mark.parametrize("name", ["data_batch_2", "test_batch", "batches.meta"])
def test_an_altered_file_is_named_and_never_unpickled(small, no_download, monkeypatch, name):
    folder, _ = small
    path = folder / CIFAR10.base_folder / name
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    monkeypatch.setattr("pickle.load", lambda *_, **__: pytest.fail("an unchecked file was unpickled"))
    with pytest.raises(source.AlteredData, match=f"{name} .MD5 differs.") as caught:
        cifar10.load(folder)
    assert f"cifar10.load({str(folder)!r}, download=True)" in str(caught.value)
    assert sum(str(caught.value).count(other) for other in BATCHES) == (name != "batches.meta")


def test_the_small_files_are_not_taken_for_the_real_ones(tmp_path, no_download):
    write(tmp_path)
    with pytest.raises(source.AlteredData, match=r"data_batch_1, data_batch_2, .*batches\.meta"):
        cifar10.load(tmp_path)


@pytest.fixture
def server(monkeypatch):
    """Instead of the authors' server: the small files, written where the archive would be unpacked."""
    asked = []

    def answer(url, folder, filename, md5):
        assert (url, filename, md5) == (CIFAR10.url, CIFAR10.filename, CIFAR10.tgz_md5)
        asked.append(folder)
        write(folder)

    monkeypatch.setattr(utils, "download_and_extract_archive", answer)
    return asked


def test_download_fetches_into_the_folder_once(small, server):
    folder = small[0] / "elsewhere" / "pictures"
    for _ in range(2):
        assert torch.equal(cifar10.load(folder, download=True).images, cifar10.load(small[0]).images)
    assert server == [folder]


@pytest.mark.parametrize("name", ["data_batch_4", "batches.meta"])
def test_download_mends_what_is_missing_or_altered(small, server, name):
    path = small[0] / CIFAR10.base_folder / name
    path.write_bytes(b"half a file")
    assert len(cifar10.load(small[0], download=True)) == 24
    path.unlink()
    assert len(cifar10.load(small[0], download=True)) == 24
    assert len(server) == 2


def test_a_failed_download_says_what_to_do(tmp_path):
    """The tests run with PFMCOURSE_OFFLINE=1, so the real download is refused."""
    with pytest.raises(base.CourseError, match=r"could not be fetched from https://.*Try again with a network"):
        cifar10.load(tmp_path, download=True)
