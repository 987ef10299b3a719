"""Jordan's network: the hidden units see the output one step before.

    a(t) = U x(t) + W ỹ(t−1) + b
    h(t) = f(a(t))                      f = tanh
    o(t) = V h(t) + c
    ỹ(t) = g(o(t))                      g = σ

The output is the state: all that the network knows of the past is what it has said. The library has it as
`gc.cells.jordan`.
"""

import numpy as np

import graphc as gc


def graph(inputs: int = 1, hidden: int = 16, outputs: int = 1) -> gc.Graph:
    g = gc.Graph("jordan")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (outputs,), over=(t, n))
    U, W, b = g.param("U", (hidden, inputs)), g.param("W", (hidden, outputs)), g.param("b", (hidden,))
    V, c = g.param("V", (outputs, hidden)), g.param("c", (outputs,))

    p = g.state("p", (outputs,), over=(t, n))  # the lecture's ỹ
    a = U @ x[t] + W @ p[t - 1] + b
    h = gc.tanh(a)
    o = V @ h + c
    p[t] = gc.sigmoid(o)

    g.output("p", p)
    g.output("loss", gc.mean(gc.sum((p - y) ** 2), over=(t, n)))
    return g


def data(seed: int = 0, T: int = 12, N: int = 64) -> dict[str, np.ndarray]:
    """Parity: has the number of ones so far been odd?"""
    x = np.random.default_rng(seed).integers(0, 2, (T, N, 1))
    return {"x": x.astype(np.float32), "y": (np.cumsum(x, axis=0) % 2).astype(np.float32)}


def main() -> None:
    g = graph()
    step = gc.training_step(g, "loss", gc.optim.Adam(lr=0.02))
    arrays, run = gc.initialize(step), gc.compile(step)
    for k in range(401):
        loss = run(**data(k), **arrays)["loss"]
        if k % 100 == 0:
            print(f"step {k:3}: loss {loss:.3f}")
    gc.draw(gc.unroll(g, t=4)).save("jordan.svg")


if __name__ == "__main__":
    main()
