"""The recurrent block of ReSeg (Visin et al. 2016): an image is read as sequences, by its columns and by its rows.

The feature map is divided into blocks p(i, j). A bidirectional network reads the columns, from the top to the bottom
and from the bottom to the top; what it makes of a block is put side by side:

    o↓(i, j) = f↓(o↓(i−1, j), p(i, j)),   i = 1 … I
    o↑(i, j) = f↑(o↑(i+1, j), p(i, j)),   i = I … 1
    o↕(i, j) = [o↓(i, j), o↑(i, j)]

A second one reads the rows of that, from the left to the right and from the right to the left:

    o→(i, j) = f→(o→(i, j−1), o↕(i, j)),  j = 1 … J
    o←(i, j) = f←(o←(i, j+1), o↕(i, j)),  j = J … 1
    o↔(i, j) = [o→(i, j), o←(i, j)]

Each f is tanh(W p + U o + b) with params of its own. Every o↔(i, j) has seen the whole image. The library has it as
`gc.cells.spatial_rnn`, for any cell; reseg.py has two of them in the lecture's image model.
"""

import numpy as np

import graphc as gc


def graph(channels: int = 1, side: int = 8, size: int = 2, units: int = 8, classes: int = 2) -> gc.Graph:
    g = gc.Graph("recurrent_block")
    n, i, j = g.axis("n"), g.axis("i", side // size), g.axis("j", side // size)
    image = g.input("image", (channels, side, side), over=n)
    y = g.input("y", (), over=(n, i, j), dtype="int32")

    def f(name: str, before: gc.Value, p: gc.Value) -> gc.Value:
        W, U = g.param(f"W_{name}", (units, *p.shape)), g.param(f"U_{name}", (units, units))
        return gc.tanh(W @ p + U @ before + g.param(f"b_{name}", (units,)))

    p = gc.blocks(image, (size, size), axes=(i, j))
    down, up, right, left = (g.state(name, (units,), over=(i, j, n)) for name in ("down", "up", "right", "left"))
    down[i, j] = f("down", down[i - 1, j], p)
    up[i, j] = f("up", up[i + 1, j], p)
    vertical = gc.concat([down, up])
    right[i, j] = f("right", right[i, j - 1], vertical)
    left[i, j] = f("left", left[i, j + 1], vertical)
    horizontal = gc.concat([right, left])

    o = g.param("V", (classes, 2 * units)) @ horizontal + g.param("c", (classes,))
    g.output("features", gc.image(horizontal, (i, j)))  # 2 · units × I × J
    g.output("p", gc.softmax(o), over=(n, i, j))
    g.output("loss", gc.mean(gc.cross_entropy(o, y), over=(n, i, j)))
    return g


def data(seed: int = 0, N: int = 64, side: int = 8, size: int = 2) -> dict[str, np.ndarray]:
    """One pixel of each image is lit. Which blocks are in its column of blocks, or in its row?"""
    rng = np.random.default_rng(seed)
    images, blocks = np.zeros((N, 1, side, side), np.float32), np.arange(side // size)
    rows, columns = rng.integers(0, side, (2, N))
    images[np.arange(N), 0, rows, columns] = 1
    in_row, in_column = (lit[:, None] // size == blocks for lit in (rows, columns))
    return {"image": images, "y": (in_row[:, :, None] | in_column[:, None, :]).astype(np.int32)}


def main() -> None:
    g = graph()
    step = gc.training_step(g, "loss", gc.optim.Adam(lr=0.01))
    arrays, run = gc.initialize(step), gc.compile(step)
    for k in range(401):
        loss = run(**data(k), **arrays)["loss"]
        if k % 100 == 0:
            print(f"step {k:3}: loss {loss:.3f}")
    gc.draw(g).save("recurrent_block.svg")


if __name__ == "__main__":
    main()
