"""The gated recurrent unit (Chung et al. 2014): one gate less than the LSTM, and no memory besides h.

    r(t) = σ(W_r x(t) + U_r h(t−1) + b_r)                       reset
    z(t) = σ(W_z x(t) + U_z h(t−1) + b_z)                       update
    h̃(t) = tanh(W x(t) + U (r(t) ⊙ h(t−1)) + b)                 the candidate
    h(t) = (1 − z(t)) ⊙ h(t−1) + z(t) ⊙ h̃(t)

The library has it as `gc.cells.gru`, and PyTorch's as `gc.cells.gru(…, reset="after", update="old")`.
"""

import numpy as np

import graphc as gc


def graph(inputs: int = 2, hidden: int = 16) -> gc.Graph:
    g = gc.Graph("gru")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (), over=n)
    W_r, W_z, W = (g.param(name, (hidden, inputs)) for name in ("W_r", "W_z", "W"))
    U_r, U_z, U = (g.param(name, (hidden, hidden), init="orthogonal") for name in ("U_r", "U_z", "U"))
    b_r, b_z, b = (g.param(name, (hidden,)) for name in ("b_r", "b_z", "b"))

    h = g.state("h", (hidden,), over=(t, n))
    r = gc.sigmoid(W_r @ x[t] + U_r @ h[t - 1] + b_r)
    z = gc.sigmoid(W_z @ x[t] + U_z @ h[t - 1] + b_z)
    h_new = gc.tanh(W @ x[t] + U @ (r * h[t - 1]) + b)
    h[t] = (1 - z) * h[t - 1] + z * h_new

    o = g.param("V", (1, hidden)) @ h[t.last] + g.param("c", (1,))
    g.output("o", o[0])
    g.output("loss", gc.mean((o[0] - y) ** 2, over=n))
    return g


def data(seed: int = 0, T: int = 20, N: int = 64) -> dict[str, np.ndarray]:
    """The adding problem: add the two numbers that are marked, one in each half (Hochreiter & Schmidhuber 1997)."""
    rng = np.random.default_rng(seed)
    numbers, marks = rng.random((T, N)), np.zeros((T, N))
    marks[rng.integers(0, T // 2, N), np.arange(N)] = 1
    marks[rng.integers(T // 2, T, N), np.arange(N)] = 1
    x = np.stack([numbers, marks], axis=-1)
    return {"x": x.astype(np.float32), "y": (numbers * marks).sum(axis=0).astype(np.float32)}


def main() -> None:
    g = graph()
    step = gc.training_step(g, "loss", gc.optim.Adam(lr=0.01))
    arrays, run = gc.initialize(step), gc.compile(step)
    for k in range(1001):
        loss = run(**data(k), **arrays)["loss"]
        if k % 200 == 0:
            print(f"step {k:4}: mean squared error {loss:.4f}")
    gc.draw(g).save("gru.svg")


if __name__ == "__main__":
    main()
