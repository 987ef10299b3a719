"""A stack of recurrent layers, each on the outputs of the layer below.

    h_l(t) = f(W_lᵀ h_l(t−1) + U_lᵀ h_{l−1}(t)),     h_0(t) = x(t),     l = 1 … L

The library has it as `gc.cells.stack`, for any cell.
"""

import numpy as np

import graphc as gc


def graph(layers: int = 3, inputs: int = 4, hidden: int = 16, outputs: int = 4) -> gc.Graph:
    g = gc.Graph("stack")
    t, n = g.axis("t"), g.axis("n")
    below = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (), over=(t, n), dtype="int32")

    for l in range(1, layers + 1):
        W, U = g.param(f"W_{l}", (hidden, hidden)), g.param(f"U_{l}", (*below.shape, hidden))
        h = g.state(f"h_{l}", (hidden,), over=(t, n))
        h[t] = gc.tanh(W.T @ h[t - 1] + U.T @ below)
        below = h
    o = g.param("V", (outputs, hidden)) @ below + g.param("c", (outputs,))

    g.output("p", gc.softmax(o))
    g.output("loss", gc.mean(gc.cross_entropy(o, y), over=(t, n)))
    return g


def data(seed: int = 0, T: int = 12, N: int = 64) -> dict[str, np.ndarray]:
    """Say again what was heard three steps ago (and symbol 0 before that)."""
    symbols = np.random.default_rng(seed).integers(0, 4, (T, N))
    said = np.concatenate([np.zeros((3, N)), symbols[:-3]])
    return {"x": np.eye(4, dtype=np.float32)[symbols], "y": said.astype(np.int32)}


def main() -> None:
    g = graph()
    step = gc.training_step(g, "loss", gc.optim.Adam(lr=0.005))
    arrays, run = gc.initialize(step), gc.compile(step)
    for k in range(601):
        loss = run(**data(k), **arrays)["loss"]
        if k % 200 == 0:
            print(f"step {k:3}: loss {loss:.3f}")
    gc.draw(gc.unroll(g, t=4)).save("stack.svg")


if __name__ == "__main__":
    main()
