"""Long short-term memory, on the concatenation [h(t−1), x(t)].

    f(t) = σ(W_f [h(t−1), x(t)] + b_f)              what to forget
    i(t) = σ(W_i [h(t−1), x(t)] + b_i)              what to write
    C̃(t) = tanh(W_C [h(t−1), x(t)] + b_C)           the new content
    C(t) = f(t) ⊙ C(t−1) + i(t) ⊙ C̃(t)
    o(t) = σ(W_o [h(t−1), x(t)] + b_o)              what to show
    h(t) = o(t) ⊙ tanh C(t)

One label for each sequence is read off the last h. The library has the cell as `gc.cells.lstm`, with the two halves of
each W apart.
"""

import numpy as np

import graphc as gc


def graph(inputs: int = 4, hidden: int = 16, classes: int = 4) -> gc.Graph:
    g = gc.Graph("lstm")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (), over=n, dtype="int32")
    W_f, W_i, W_C, W_o = (g.param(f"W_{k}", (hidden, hidden + inputs)) for k in "fiCo")
    b_f, b_i, b_C, b_o = (g.param(f"b_{k}", (hidden,), init=1 if k == "f" else 0) for k in "fiCo")

    h = g.state("h", (hidden,), over=(t, n))
    C = g.state("C", (hidden,), over=(t, n))
    hx = gc.concat([h[t - 1], x[t]])
    f = gc.sigmoid(W_f @ hx + b_f)
    i = gc.sigmoid(W_i @ hx + b_i)
    C_new = gc.tanh(W_C @ hx + b_C)
    C[t] = f * C[t - 1] + i * C_new
    o = gc.sigmoid(W_o @ hx + b_o)
    h[t] = o * gc.tanh(C[t])

    logits = g.param("V", (classes, hidden)) @ h[t.last] + g.param("c", (classes,))
    g.output("p", gc.softmax(logits))
    g.output("loss", gc.mean(gc.cross_entropy(logits, y), over=n))
    return g


def data(seed: int = 0, T: int = 20, N: int = 64) -> dict[str, np.ndarray]:
    """Remember the first symbol to the end: the task that an ordinary recurrent network finds hard."""
    symbols = np.random.default_rng(seed).integers(0, 4, (T, N))
    return {"x": np.eye(4, dtype=np.float32)[symbols], "y": symbols[0].astype(np.int32)}


def main() -> None:
    g = graph()
    step = gc.training_step(g, "loss", gc.optim.Adam(lr=0.01))
    arrays, run = gc.initialize(step), gc.compile(step)
    for k in range(601):
        loss = run(**data(k), **arrays)["loss"]
        if k % 100 == 0:
            print(f"step {k:3}: loss {loss:.3f}")
    gc.draw(g).save("lstm.svg")


if __name__ == "__main__":
    main()
