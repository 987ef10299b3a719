"""Elman's network: the hidden units see themselves one step before.

    a(t) = U x(t) + W h(t−1) + b
    h(t) = f(a(t))                      f = tanh
    o(t) = V h(t) + c
    ỹ(t) = g(o(t))                      g = softmax

The library has it as `gc.cells.elman`.
"""

import numpy as np

import graphc as gc


def graph(inputs: int = 4, hidden: int = 16, outputs: int = 4) -> gc.Graph:
    g = gc.Graph("elman")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (), over=(t, n), dtype="int32")
    U, W, b = g.param("U", (hidden, inputs)), g.param("W", (hidden, hidden)), g.param("b", (hidden,))
    V, c = g.param("V", (outputs, hidden)), g.param("c", (outputs,))

    h = g.state("h", (hidden,), over=(t, n))
    a = U @ x[t] + W @ h[t - 1] + b
    h[t] = gc.tanh(a)
    o = V @ h[t] + c

    g.output("p", gc.softmax(o))
    g.output("loss", gc.mean(gc.sum(gc.cross_entropy(o, y), over=t), over=n))
    return g


def data(seed: int = 0, T: int = 10, N: int = 64) -> dict[str, np.ndarray]:
    """Say again what was heard two steps ago (and symbol 0 before that)."""
    symbols = np.random.default_rng(seed).integers(0, 4, (T, N))
    said = np.concatenate([np.zeros((2, N)), symbols[:-2]])
    return {"x": np.eye(4, dtype=np.float32)[symbols], "y": said.astype(np.int32)}


def main() -> None:
    g = graph()
    step = gc.training_step(g, "loss", gc.optim.Adam(lr=0.01))
    arrays, run = gc.initialize(step), gc.compile(step)
    for k in range(401):
        loss = run(**data(k), **arrays)["loss"]
        if k % 100 == 0:
            print(f"step {k:3}: loss {loss:.3f}")
    gc.draw(g).save("elman.svg")
    gc.draw(gc.unroll(g, t=4)).save("elman_unrolled.svg")


if __name__ == "__main__":
    main()
