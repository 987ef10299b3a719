"""`graphc train` on photographs: from the words of the command line to a data set, a graph and settings."""

from __future__ import annotations

import re
from dataclasses import dataclass, fields
from pathlib import Path

from graphc.command_line.image_model import image_graph
from graphc.command_line.image_training import EPOCHS, OPTIMIZER, ImageTraining, train
from graphc.command_line.training_command import Given
from graphc.command_line.user_file import load_module
from graphc.datasets import Photographs, imdb_wiki, orl_faces, photographs
from graphc.datasets.decode import Shape
from graphc.datasets.imdb_wiki import is_imdb_wiki
from graphc.errors import ArgumentError

HELD_OUT = 0.2
ORL_SHAPE = (1, 64, 64)  # of 112 × 92: enough to tell the people apart, and a quarter of the time
ORL_EPOCHS = 30


@dataclass(frozen=True, slots=True)
class PhotographOptions:
    """The options for photographs as the user gave them; None or "" where not given."""

    images: Path | None
    data: str
    image_size: str
    held_out: float | None
    augment: bool | None
    skip_unreadable: bool | None

    @property
    def named(self) -> bool:
        """Whether there are photographs to train on."""
        return self.images is not None or self.data == "orl"

    def refuse_others(self) -> None:
        """Raise `ArgumentError` where an option for photographs was given and none are named."""
        for field in fields(self):
            if field.name not in ("images", "data", "held_out") and getattr(self, field.name) not in (None, ""):
                option = field.name.replace("_", "-")
                raise ArgumentError(f"--{option} is for photographs; name them by --images FOLDER or --data orl")


def train_on_photographs(file: Path, function: str, given: Given, options: PhotographOptions) -> None:
    """Train the graph that a file's function makes for the photographs' classes."""
    module = load_module(file)
    optimizer = given.optimizer_or(OPTIMIZER)
    data = source(options)
    shape = parse_shape(options.image_size) if options.image_size else ORL_SHAPE if options.data else None
    graph = image_graph(module, function, len(data.classes), shape)
    how = ImageTraining(
        out=given.output or Path("out") / f"{graph.name}-{data.name}",
        optimizer=optimizer,
        epochs=given.epochs or (ORL_EPOCHS if options.data else EPOCHS),
        batch_size=given.batch_size,
        augment=options.augment is not False,
        skip_unreadable=bool(options.skip_unreadable),
        loss=given.loss,
        seed=given.seed,
        target=given.target,
        memory=given.memory,
        precision=given.precision,
    )
    train(graph, data, how)


def source(options: PhotographOptions) -> Photographs:
    """The data set that the options name."""
    if options.images is None:
        if options.held_out is not None:
            raise ArgumentError("--data orl holds out photographs 9 and 10 of each person; leave --held-out away")
        return orl_faces()
    if options.data:
        raise ArgumentError(f"photographs come from --images {options.images} or --data {options.data}, not both")
    held_out = HELD_OUT if options.held_out is None else options.held_out
    return (
        imdb_wiki(options.images, held_out) if is_imdb_wiki(options.images) else photographs(options.images, held_out)
    )


def parse_shape(text: str) -> Shape:
    """(C, H, W) of SIDE, HEIGHTxWIDTH or CHANNELSxHEIGHTxWIDTH; 3 channels where none are named."""
    match = re.fullmatch(r"(?:(?:([13])[x×])?([1-9][0-9]{0,3})[x×])?([1-9][0-9]{0,3})", text)
    if match is None:
        raise ArgumentError(f"--image-size is SIDE, HEIGHTxWIDTH or CHANNELSxHEIGHTxWIDTH (1 or 3), not {text!r}")
    return int(match[1] or 3), int(match[2] or match[3]), int(match[3])
