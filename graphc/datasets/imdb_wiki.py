"""IMDB-WIKI: photographs of known people; the task is to tell their sex.

R. Rothe, R. Timofte & L. Van Gool, "Deep expectation of real and apparent age from a single image without facial
landmarks", International Journal of Computer Vision 126, 2018; https://data.vision.ee.ethz.ch/cvl/rrothe/imdb-wiki/.
A folder of the faces-only release, `imdb_crop` or `wiki_crop`, holds the photographs in numbered subfolders, and
`imdb.mat` or `wiki.mat`: a MATLAB file of version 5 with one struct, whose fields have one entry a photograph.

| field | entry |
|---|---|
| full_path | the file, below the folder |
| gender | 0 female, 1 male, NaN unknown |
| name | the person |
| face_score | of the face that was found, -Inf without any |
| second_face_score | of another face beside it, NaN without any |
| dob, photo_taken, face_location | birth, year, and place in the uncut photograph: not used |
"""

from __future__ import annotations

import hashlib
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from graphc.datasets.image_folder import Photograph, Photographs
from graphc.datasets.names import natural, printable
from graphc.errors import ArgumentError

METADATA = ("imdb.mat", "wiki.mat")
FIELDS = ("full_path", "gender", "name", "face_score", "second_face_score")
CLASSES = ("female", "male")


def is_imdb_wiki(folder: Path | str) -> bool:
    """Whether a folder has the layout of one of the two sets."""
    return any((Path(folder) / name).is_file() for name in METADATA)


def imdb_wiki(folder: Path | str, held_out: float = 0.2, least_score: float = 0.0) -> Photographs:
    """The photographs that show one face, of a score of at least `least_score`, and whose person's sex is known.

    About the share `held_out` of the people is held out, with all their photographs; who, follows from their names.
    Raises `ArgumentError` if there is no metadata, or it is damaged, names a file outside the folder, or leaves fewer
    than two classes to train on.
    """
    folder = Path(folder)
    path = next((folder / name for name in METADATA if (folder / name).is_file()), None)
    if path is None:
        raise ArgumentError(f"{printable(str(folder))} has neither {' nor '.join(METADATA)}")
    if not 0 <= held_out < 1:
        raise ArgumentError(f"the share of people to hold out is at least 0 and below 1, not {held_out:g}")
    fields = _fields(path)
    chosen, notes = _usable(fields, least_score)
    parts: tuple[list[Photograph], list[Photograph]] = ([], [])
    files = {int(k): _file(path, fields["full_path"][k]) for k in chosen}
    for k, file in sorted(files.items(), key=lambda item: natural(str(item[1]))):
        person = _text(fields["name"][k]) or _text(fields["full_path"][k])
        parts[_share(person) < held_out].append(Photograph(file, int(fields["gender"][k])))
    if len({photograph.label for photograph in parts[0]}) < 2:
        raise ArgumentError(f"{printable(str(path))} leaves fewer than two classes to train on; {'; '.join(notes)}")
    return Photographs(path.stem, CLASSES, tuple(parts[0]), tuple(parts[1]), notes)


def _fields(path: Path) -> dict[str, np.ndarray]:
    """The fields of the struct, each with one entry a photograph."""
    try:
        from scipy.io import loadmat
    except ImportError:
        raise ArgumentError("IMDB-WIKI's metadata is read by scipy: pip install 'graphc-compiler[imdb-wiki]'") from None
    shown = printable(str(path))
    try:
        record = loadmat(path, variable_names=[path.stem])[path.stem][0, 0]
        fields = {name: record[name].ravel() for name in FIELDS}
        numbers = {name: fields[name].astype(np.float64) for name in ("gender", "face_score", "second_face_score")}
    except Exception as error:  # of a damaged file, scipy's parser raises nearly anything
        expected = f"expected a MATLAB 5 file with a struct {path.stem!r} of {', '.join(FIELDS)}"
        raise ArgumentError(f"cannot read {shown}: {expected}: {type(error).__name__}: {error}") from None
    if len({len(entries) for entries in fields.values()}) != 1:
        lengths = ", ".join(f"{name} {len(entries)}" for name, entries in fields.items())
        raise ArgumentError(f"the fields of {shown} do not have one entry a photograph each: {lengths}")
    return {**fields, **numbers}


def _usable(fields: dict[str, np.ndarray], least_score: float) -> tuple[np.ndarray, tuple[str, ...]]:
    """Which entries are used, and how many are not, for each reason: the first that holds."""
    score = fields["face_score"]
    reasons = {
        "without a face": ~np.isfinite(score),
        f"with a face score below {least_score:g}": score < least_score,
        "with a second face": ~np.isnan(fields["second_face_score"]),
        "of unknown sex": ~np.isin(fields["gender"], (0, 1)),
    }
    usable = np.ones(len(score), bool)
    notes = []
    for reason, holds in reasons.items():
        count = int((usable & holds).sum())
        usable &= ~holds
        if count:
            notes.append(f"{count:,} photographs {reason} were left out")
    return np.flatnonzero(usable), tuple(notes)


def _file(metadata: Path, entry: Any) -> Path:
    """The file that an entry names. One that lies elsewhere is refused: the metadata is not ours."""
    name = PurePosixPath(_text(entry))
    if not name.parts or name.is_absolute() or ".." in name.parts or "\0" in str(name):
        raise ArgumentError(f"{printable(str(metadata))} names {str(name)!r}, which is no file below its folder")
    return metadata.parent / name


def _text(entry: Any) -> str:
    """A cell of the file: an array of at most one string."""
    return "".join(str(part) for part in np.ravel(entry))


def _share(person: str) -> float:
    """A number in [0, 1) that follows from a name."""
    return int.from_bytes(hashlib.sha256(person.encode("utf-8", "surrogatepass")).digest()[:6], "big") / 2**48
