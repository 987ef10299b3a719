"""ReSeg as its paper has it (Visin et al. 2016): a class for every pixel of an image.

A few convolutions make features, GRUs read them down, up and along the rows both ways, so that each place knows the
whole image, and transposed convolutions bring the result back to the image's size. Each size of a feature map stands
beside its layer, for images of 3 × 64 × 64.

Run, it learns to find a face before a mosaic of pieces of other faces.
"""

import functools

import numpy as np

import graphc as gc
from graphc.datasets.decode import pixels

TILE = 8  # the side of a piece of background


def segment(classes: int = 2, image: tuple[int, int, int] = (3, 64, 64)) -> gc.Graph:
    """`image` is (channels, height, width), the sides multiples of 8; pixels are 0 to 255.

    Input label (height, width) has the class of each pixel, output probabilities is (classes, height, width).
    """
    g = gc.Graph("reseg_segmentation")
    n = g.axis("n")
    x = g.input("image", image, over=n) / 128 - 1

    def conv(v: gc.Value, filters: int, name: str) -> gc.Value:
        y = gc.layers.conv(g, v, filters, size=3, padding=1, bias=False, name=name)
        return gc.relu(gc.layers.batch_norm(g, y, over=n, name=f"{name}_norm"))

    def up(v: gc.Value, filters: int, name: str) -> gc.Value:
        return gc.relu(gc.layers.conv_transpose(g, v, filters, size=2, stride=2, name=name))

    x = gc.max_pool(conv(x, 16, "conv_1"), size=2)  # 16 × 32 × 32
    x = gc.max_pool(conv(x, 32, "conv_2"), size=2)  # 32 × 16 × 16
    x = gc.cells.spatial_rnn(g, x, units=32, size=2, cell=gc.cells.gru, name="rnn_3").image  # 64 × 8 × 8
    x = gc.cells.spatial_rnn(g, x, units=32, size=1, cell=gc.cells.gru, name="rnn_4").image  # 64 × 8 × 8
    x = up(x, 32, "up_5")  # 32 × 16 × 16
    x = up(x, 16, "up_6")  # 16 × 32 × 32
    scores = gc.layers.conv_transpose(g, x, classes, size=2, stride=2, name="up_7")  # classes × 64 × 64

    g.output("probabilities", gc.softmax(scores, dim=0))
    label = g.input("label", image[1:], over=n, dtype="int32")
    each_pixel = gc.cross_entropy(scores, label, dim=0)
    g.output("loss", gc.mean(gc.mean(each_pixel), over=n))
    return g


@functools.cache
def faces(held_out: bool, shape: tuple[int, int, int]) -> np.ndarray:
    """The ORL faces (M, C, H, W), of which those that are held out show the same people."""
    photographs = gc.datasets.orl_faces()
    return np.stack([pixels(p.path, shape) for p in (photographs.test if held_out else photographs.train)])


def data(
    seed: int = 0, N: int = 16, image: tuple[int, int, int] = (3, 64, 64), held_out: bool = False
) -> dict[str, np.ndarray]:
    """N faces, each an ellipse somewhere before a mosaic of others; label 1 is the face."""
    rng = np.random.default_rng(seed)
    channels, height, width = image
    mosaic, portraits = faces(held_out, image), faces(held_out, (channels, 5 * height // 8, width // 2))
    rows, columns = np.arange(height)[:, None], np.arange(width)
    scenes, labels = np.empty((N, *image), np.float32), np.empty((N, height, width), np.int32)
    for scene, label in zip(scenes, labels, strict=True):
        for i in range(0, height, TILE):
            for j in range(0, width, TILE):
                which, down, across = rng.integers((len(mosaic), height - TILE + 1, width - TILE + 1))
                scene[:, i : i + TILE, j : j + TILE] = mosaic[which, :, down : down + TILE, across : across + TILE]
        face = portraits[rng.integers(len(portraits))][:, :, :: rng.choice((1, -1))]
        high, wide = face.shape[1:]
        top, left = rng.integers(height - high + 1), rng.integers(width - wide + 1)
        inside = ((rows - top + 0.5) / high * 2 - 1) ** 2 + ((columns - left + 0.5) / wide * 2 - 1) ** 2 < 1
        label[...] = inside
        part = (slice(None), slice(top, top + high), slice(left, left + wide))
        scene[part] = np.where(inside[part[1:]], face, scene[part])
    return {"image": scenes, "label": labels}


def overlap(probabilities: np.ndarray, label: np.ndarray) -> float:
    """Pixels that are called a face and are one, over pixels that are either (intersection over union)."""
    found, real = probabilities[:, 1] > 0.5, label == 1
    return float((found & real).sum() / (found | real).sum())


def main() -> None:
    g = segment()
    step = gc.training_step(g, "loss", gc.optim.Adam(lr=3e-3))
    arrays, run = gc.initialize(step), gc.compile(step)
    model = gc.select(gc.inference(g), "probabilities")
    after = gc.compile(model)
    unseen = data(0, 40, held_out=True)
    for k in range(151):
        loss = run(**data(k), **arrays)["loss"]
        if k % 50 == 0:
            params = {name: arrays[name] for name in model.params}
            found = after(image=unseen["image"], **params)["probabilities"]
            print(f"step {k:3}: loss {loss:.3f}, overlap with unseen faces {overlap(found, unseen['label']):.0%}")
    gc.draw(g).save("reseg_segmentation.svg")


if __name__ == "__main__":
    main()
