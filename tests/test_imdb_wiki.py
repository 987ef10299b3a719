"""IMDB-WIKI's layout and metadata, on a small made-up copy."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from graphc.datasets import Photographs, imdb_wiki
from graphc.datasets.imdb_wiki import is_imdb_wiki
from graphc.errors import ArgumentError

scipy_io = pytest.importorskip("scipy.io")

Entries = dict[str, list[Any]]


def entries(count: int = 60) -> Entries:
    """Photographs of 12 people, five each, all of them usable; the first six people are women."""
    people = [k // 5 for k in range(count)]
    return {
        "dob": [723_671 + k for k in people],
        "photo_taken": [2009] * count,
        "full_path": [f"{k % 100:02}/{k}_1981-05-05_2009.jpg" for k in range(count)],
        "gender": [float(k >= 6) for k in people],
        "name": [f"Person {k} Ñ" for k in people],
        "face_location": [np.array([10.0, 10.0, 60.0, 60.0])] * count,
        "face_score": [1.0 + k / 100 for k in range(count)],
        "second_face_score": [np.nan] * count,
    }


def write(folder: Path, fields: Entries, stem: str = "wiki") -> Path:
    """As the authors' file has it: one struct of rows, texts and boxes in cells."""
    folder.mkdir(exist_ok=True)
    record: dict[str, np.ndarray] = {}
    for name, values in fields.items():
        if name in ("full_path", "name", "face_location"):
            cells = np.empty((1, len(values)), object)
            for k, value in enumerate(values):
                cells[0, k] = value
            record[name] = cells
        else:
            record[name] = np.array([values], np.float64)
    scipy_io.savemat(folder / f"{stem}.mat", {stem: record})
    return folder


def used(data: Photographs) -> set[str]:
    return {photograph.path.name.split("_")[0] for photograph in (*data.train, *data.test)}


@pytest.mark.parametrize("stem", ["imdb", "wiki"])
def test_every_usable_photograph_with_its_sex(tmp_path: Path, stem: str) -> None:
    folder = write(tmp_path / "faces", entries(), stem)
    assert is_imdb_wiki(folder)
    data = imdb_wiki(folder)
    assert (data.name, data.classes, data.notes) == (stem, ("female", "male"), ())
    assert used(data) == set(map(str, range(60)))
    for photograph in (*data.train, *data.test):
        number = int(photograph.path.name.split("_")[0])
        assert photograph.path == folder / f"{number:02}" / photograph.path.name
        assert photograph.label == (number >= 30)


def test_people_are_held_out_whole(tmp_path: Path) -> None:
    folder = write(tmp_path / "faces", entries())
    data = imdb_wiki(folder, held_out=0.4)
    train, test = ({int(p.path.name.split("_")[0]) // 5 for p in part} for part in (data.train, data.test))
    assert train
    assert test
    assert not train & test
    smaller = imdb_wiki(folder, held_out=0.2)
    assert {p.path for p in smaller.test} <= {p.path for p in data.test}
    assert not imdb_wiki(folder, held_out=0.0).test


def test_what_shows_no_single_known_face_is_left_out(tmp_path: Path) -> None:
    fields = entries()
    fields["face_score"][0] = -np.inf
    fields["face_score"][1] = np.nan
    fields["second_face_score"][2] = 1.5
    fields["gender"][3] = np.nan
    fields["gender"][4] = 2.0
    fields["gender"][0] = np.nan  # counted once, for the first reason
    data = imdb_wiki(write(tmp_path / "faces", fields))
    assert used(data) == set(map(str, range(5, 60)))
    assert [note.split(" photographs ")[0] for note in data.notes] == ["2", "1", "2"]
    demanding = imdb_wiki(tmp_path / "faces", least_score=1.195)
    assert used(demanding) == set(map(str, range(20, 60)))


def test_a_person_without_a_name_stands_for_itself(tmp_path: Path) -> None:
    fields = entries()
    fields["name"] = [np.array([], "U1")] * 60
    data = imdb_wiki(write(tmp_path / "faces", fields), held_out=0.5)
    assert len(data.train) + len(data.test) == 60
    assert 15 < len(data.test) < 45


def test_entries_may_be_in_any_order(tmp_path: Path) -> None:
    """The order of the metadata is not the order of training: the same files make the same data set."""
    fields, order = entries(), np.random.default_rng(0).permutation(60)
    shuffled = {name: [values[k] for k in order] for name, values in fields.items()}
    a, b = (imdb_wiki(write(tmp_path / "faces", some)) for some in (fields, shuffled))
    assert (a.train, a.test) == (b.train, b.test)


@pytest.mark.parametrize("path", ["../secret.jpg", "/etc/passwd", "a/../../b.jpg", "", "."])
def test_a_path_out_of_the_folder_is_refused(tmp_path: Path, path: str) -> None:
    fields = entries()
    fields["full_path"][7] = path
    with pytest.raises(ArgumentError, match="no file below its folder"):
        imdb_wiki(write(tmp_path / "faces", fields))


def _without(name: str) -> Callable[[Path], object]:
    return lambda path: write(path, {k: v for k, v in entries().items() if k != name})


def _bytes(data: bytes) -> Callable[[Path], object]:
    def make(path: Path) -> None:
        path.mkdir()
        (path / "wiki.mat").write_bytes(data)

    return make


def _cut(path: Path) -> None:
    file = write(path, entries()) / "wiki.mat"
    file.write_bytes(file.read_bytes()[:700])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda path: path.mkdir(), "neither imdb.mat nor wiki.mat"),
        (_bytes(b""), "wiki.mat: expected a MATLAB 5 file"),
        (_bytes(b"soup" * 100), "wiki.mat: expected a MATLAB 5 file"),
        (_cut, "wiki.mat: expected a MATLAB 5 file"),
        (_without("gender"), "gender"),
        (lambda path: write(path, {**entries(), "gender": [0.0] * 59}), "one entry a photograph each: .*gender 59"),
        (lambda path: write(path, {**entries(), "gender": [1.0] * 60}), "fewer than two classes"),
        (lambda path: write(path, {**entries(), "face_score": [-np.inf] * 60}), "60 photographs without a face"),
        (lambda path: scipy_io.savemat(_made(path) / "wiki.mat", {"imdb": [1]}), "KeyError: 'wiki'"),
        (lambda path: scipy_io.savemat(_made(path) / "wiki.mat", {"wiki": [1]}), "expected a MATLAB 5 file"),
    ],
)
def test_metadata_that_is_not_theirs(tmp_path: Path, make: Callable[[Path], object], message: str) -> None:
    make(tmp_path / "faces")
    with pytest.raises(ArgumentError, match=message):
        imdb_wiki(tmp_path / "faces")


def _made(path: Path) -> Path:
    path.mkdir()
    return path


def test_scipy_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "faces", entries())
    monkeypatch.setitem(__import__("sys").modules, "scipy.io", None)
    with pytest.raises(ArgumentError, match=r"pip install 'graphc-compiler\[imdb-wiki\]'"):
        imdb_wiki(tmp_path / "faces")
