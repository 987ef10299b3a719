"""Photographs to classify: which files there are, of which class each is, which are held out.

In: a folder with one subfolder a class. Out: `Photographs`, a list of files; none has been opened yet. The same folder
gives the same list, in the same order, wherever it lies.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from graphc.datasets.names import natural, printable
from graphc.errors import ArgumentError

SUFFIXES = (".jpg", ".jpeg", ".png", ".pgm", ".ppm")


@dataclass(frozen=True, slots=True)
class Photograph:
    """A file, and the number of its class."""

    path: Path
    label: int


@dataclass(frozen=True, slots=True)
class Photographs:
    """A data set: its name, the names of its classes by number, its two parts, and remarks on what was left out."""

    name: str
    classes: tuple[str, ...]
    train: tuple[Photograph, ...]
    test: tuple[Photograph, ...]
    notes: tuple[str, ...] = ()

    @property
    def fingerprint(self) -> str:
        """Names what there is to train on: the same for the same names and labels, wherever the files lie."""
        known = hashlib.sha256("\0".join(map(printable, self.classes)).encode())
        for photograph in self.train:
            known.update(b"\0%d\0" % photograph.label + os.fsencode(photograph.path.name))
        return known.hexdigest()


def photographs(folder: Path | str, held_out: float = 0.2) -> Photographs:
    """The photographs of a folder that has one subfolder for each class.

    A folder with subfolders `train` and `test`, each with one subfolder a class, says itself what is held out. From
    any other, the share `held_out` of each class is, at least one photograph of two and never all; which, follows from
    their names alone, so a photograph that is added later moves at most one other. Files are JPEG, PNG, PGM or PPM by
    their suffix. Subfolders of a class, hidden files and other files are left out. A link counts as what it points to.

    Raises `ArgumentError` if there are fewer than two classes, or a class without photographs.
    """
    folder = Path(folder)
    if not 0 <= held_out < 1:
        raise ArgumentError(f"the share of photographs to hold out is at least 0 and below 1, not {held_out:g}")
    if not folder.is_dir():
        raise ArgumentError(f"there is no folder {printable(str(folder))}")
    name = printable(folder.resolve().name)
    if (folder / "train").is_dir() and (folder / "test").is_dir():
        return _given(name, folder)
    by_class, notes = _by_class(folder)
    parts = {label: _split(label, files, held_out) for label, files in by_class.items()}
    train = {label: part[0] for label, part in parts.items()}
    test = {label: part[1] for label, part in parts.items()}
    return _numbered(name, train, test, notes)


Files = Mapping[str, Sequence[Path]]
"""The files of each class, by its name."""


def _given(name: str, folder: Path) -> Photographs:
    train, notes = _by_class(folder / "train")
    test, further = _by_class(folder / "test")
    unknown = [label for label in test if label not in train]
    if unknown:
        shown = printable(unknown[0])
        raise ArgumentError(f"{printable(str(folder))} has test/{shown}, but no train/{shown} to learn that class from")
    return _numbered(name, train, test, (*notes, *further))


def _by_class(folder: Path) -> tuple[dict[str, list[Path]], tuple[str, ...]]:
    """The photographs of each subfolder, in natural order, and what is to be said of the other files."""
    shown = printable(str(folder))
    classes = sorted((f for f in folder.iterdir() if f.is_dir() and not _hidden(f)), key=lambda f: natural(f.name))
    if not classes:
        raise ArgumentError(f"{shown} has no subfolders; expected one for each class, with its photographs")
    found, others = {}, 0
    for subfolder in classes:
        files = sorted((f for f in subfolder.iterdir() if not _hidden(f)), key=lambda f: natural(f.name))
        found[subfolder.name] = [f for f in files if f.suffix.lower() in SUFFIXES and f.is_file()]
        others += len(files) - len(found[subfolder.name])
        if not found[subfolder.name]:
            raise ArgumentError(
                f"{printable(str(subfolder))} has no photographs; expected {', '.join(SUFFIXES)} files, "
                f"found {len(files)} others"
            )
    return found, (f"{others:,} other files in {shown} were left out",) if others else ()


def _hidden(path: Path) -> bool:
    return path.name.startswith(".")


def _split(label: str, files: Sequence[Path], held_out: float) -> tuple[list[Path], list[Path]]:
    """The files to train on and those to hold out, each in the order given."""
    count = min(max(round(held_out * len(files)), 1), len(files) - 1) if held_out else 0
    ranked = sorted(files, key=lambda f: hashlib.sha256(os.fsencode(f"{label}/{f.name}")).digest())
    chosen = set(ranked[:count])
    return [f for f in files if f not in chosen], [f for f in files if f in chosen]


def _numbered(name: str, train: Files, test: Files, notes: tuple[str, ...]) -> Photographs:
    if len(train) == 1:
        raise ArgumentError(
            f"{name} has one class only, {printable(next(iter(train)))}; there is nothing to tell apart"
        )
    numbers = {label: k for k, label in enumerate(train)}

    def part(by_class: Files) -> tuple[Photograph, ...]:
        return tuple(Photograph(file, numbers[label]) for label, files in by_class.items() for file in files)

    return Photographs(name, tuple(map(printable, train)), part(train), part(test), notes)
