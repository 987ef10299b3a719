"""A graph that names the class of a photograph: made by a user's file, checked, and applied.

It has inputs `image` (C, H, W) float32, 0 to 255, and `label` () int32, over one axis, and outputs `probabilities`
(classes,) over that axis and a loss.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from types import ModuleType

import numpy as np

import graphc as gc
from graphc.command_line.predictions import Predictions
from graphc.command_line.user_file import graph_of
from graphc.datasets import ImageLoader, Photographs
from graphc.datasets.decode import Shape
from graphc.datasets.image_loader import Epoch
from graphc.errors import ArgumentError


def image_graph(module: ModuleType, function: str, classes: int, image: Shape | None) -> gc.Graph:
    """The graph that a file's function makes for a number of classes, and for an image shape if one is given.

    Raises `ArgumentError` if it is no classifier of photographs, or has other sizes.
    """
    sizes = {"classes": classes} if image is None else {"classes": classes, "image": image}
    graph = graph_of(module, function, **sizes)
    found = {name: node.type for name, node in (*graph.inputs.items(), *graph.outputs.items())}
    where = f"graph {graph.name!r} of {module.__file__}"
    for name in ("image", "label", "probabilities"):
        if name not in found:
            raise ArgumentError(f"{where} has no {name}; photographs need inputs image, label, output probabilities")
    extra = [name for name in graph.inputs if name not in ("image", "label")]
    if extra:
        raise ArgumentError(f"{where} has inputs {', '.join(extra)}; photographs give image and label only")
    pixels, label, probabilities = graph.inputs["image"], graph.inputs["label"], graph.outputs["probabilities"]
    if len(pixels.shape) != 3 or pixels.dtype != "float32" or len(pixels.axes) != 1:
        raise ArgumentError(f"{where}: image is {pixels.type}; expected float32 (C, H, W) over one axis")
    if image is not None and pixels.shape != image:
        raise ArgumentError(f"{where} has images of {pixels.shape}, not {image}; its function takes no image=")
    if label.shape or label.dtype != "int32" or label.axes != pixels.axes:
        raise ArgumentError(f"{where}: label is {label.type}; expected int32, one number an image")
    if probabilities.shape != (classes,) or probabilities.axes != pixels.axes:
        raise ArgumentError(f"{where}: probabilities are {probabilities.type}; expected {classes} an image")
    return graph


def image_shape(graph: gc.Graph) -> Shape:
    channels, height, width = graph.inputs["image"].shape
    return channels, height, width


def with_accuracy(graph: gc.Graph) -> gc.Graph:
    """The graph with a further output: the share of a batch that it names right while it learns."""
    if "accuracy" in graph.outputs:
        return graph
    result = graph.copy()
    probabilities, label = (gc.Value(result, node) for node in (graph.outputs["probabilities"], graph.inputs["label"]))
    right = gc.cast(gc.argmax(probabilities) == label, "float32")
    result.output("accuracy", gc.mean(right, over=label.node.axes[0]))
    return result


@dataclass(frozen=True, slots=True)
class Arguments:
    """The batches of an epoch as the graph's inputs."""

    epoch: Epoch

    def __len__(self) -> int:
        return len(self.epoch)

    def __iter__(self) -> Iterator[dict[str, np.ndarray]]:
        for batch in self.epoch:
            yield {"image": batch.image, "label": batch.label}


def predictor(
    graph: gc.Graph, data: Photographs, held_out: ImageLoader, size: int
) -> Callable[[Mapping[str, np.ndarray]], Predictions]:
    """From params to what the network, as it is after training, says of the held-out photographs."""
    model = gc.select(gc.inference(graph), "probabilities")
    run = gc.compile(model)

    def predict(state: Mapping[str, np.ndarray]) -> Predictions:
        params = {name: state[name] for name in model.params}
        seen, probabilities = [], [np.zeros((0, len(data.classes)), np.float32)]
        for batch in held_out.in_order(size):
            seen += [data.test[k] for k in batch.index]
            probabilities.append(np.array(run(image=batch.image, **params)["probabilities"]))
        return Predictions(data.classes, seen, np.concatenate(probabilities))

    return predict
