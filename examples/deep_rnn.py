"""Two ways to make a recurrent network deep (Pascanu et al. 2014).

DT-RNN, a deep transition: L layers between the input and the new state.

    h(t) = φ_L(U_Lᵀ φ_{L−1}(… U_2ᵀ φ_1(U x(t) + W h(t−1) + b)))

DO-RNN, a deep output: L layers between the state and the output.

    ỹ(t) = ψ_L(V_Lᵀ ψ_{L−1}(… V_2ᵀ ψ_1(V h(t) + c)))

φ and ψ are tanh, but for ψ_L, a softmax. The third way is in stack.py.
"""

import numpy as np

import graphc as gc


def deep_transition(layers: int = 3, inputs: int = 2, hidden: int = 8, outputs: int = 2) -> gc.Graph:
    g = gc.Graph("deep_transition")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (), over=(t, n), dtype="int32")
    U, W, b = g.param("U", (hidden, inputs)), g.param("W", (hidden, hidden)), g.param("b", (hidden,))
    V, c = g.param("V", (outputs, hidden)), g.param("c", (outputs,))

    h = g.state("h", (hidden,), over=(t, n))
    z = gc.tanh(U @ x[t] + W @ h[t - 1] + b)
    for l in range(2, layers + 1):
        U_l = g.param(f"U_{l}", (hidden, hidden))
        z = gc.tanh(U_l.T @ z)
    h[t] = z
    o = V @ h[t] + c

    g.output("p", gc.softmax(o))
    g.output("loss", gc.mean(gc.cross_entropy(o, y), over=(t, n)))
    return g


def deep_output(layers: int = 3, inputs: int = 2, hidden: int = 8, outputs: int = 2) -> gc.Graph:
    g = gc.Graph("deep_output")
    t, n = g.axis("t"), g.axis("n")
    x = g.input("x", (inputs,), over=(t, n))
    y = g.input("y", (), over=(t, n), dtype="int32")
    U, W, b = g.param("U", (hidden, inputs)), g.param("W", (hidden, hidden)), g.param("b", (hidden,))
    V, c = g.param("V", (hidden, hidden)), g.param("c", (hidden,))

    h = g.state("h", (hidden,), over=(t, n))
    h[t] = gc.tanh(U @ x[t] + W @ h[t - 1] + b)
    o = V @ h[t] + c
    for l in range(2, layers + 1):
        V_l = g.param(f"V_{l}", (hidden, outputs if l == layers else hidden))
        o = V_l.T @ gc.tanh(o)

    g.output("p", gc.softmax(o))
    g.output("loss", gc.mean(gc.cross_entropy(o, y), over=(t, n)))
    return g


graph = deep_transition


def data(seed: int = 0, T: int = 8, N: int = 64) -> dict[str, np.ndarray]:
    """Two bits a step; the label is whether they were equal one step ago."""
    bits = np.random.default_rng(seed).integers(0, 2, (T, N, 2))
    equal = bits[..., 0] == bits[..., 1]
    before = np.concatenate([np.zeros((1, N), bool), equal[:-1]])
    return {"x": bits.astype(np.float32), "y": before.astype(np.int32)}


def main() -> None:
    for network in (deep_transition, deep_output):
        g = network()
        step = gc.training_step(g, "loss", gc.optim.Adam(lr=0.01))
        arrays, run = gc.initialize(step), gc.compile(step)
        losses = [float(run(**data(k), **arrays)["loss"]) for k in range(600)]
        print(f"{g.name:15}: loss {losses[0]:.3f} → {losses[-1]:.3f}")
        gc.draw(g).save(f"{g.name}.svg")


if __name__ == "__main__":
    main()
