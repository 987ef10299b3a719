"""Keyword arguments by other frameworks' names, or misspelt: refused with the names that there are.

Python's own error names the method of a class that the user never wrote, and none of the user's lines.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from graphc.errors import DefinitionError, meant

__all__ = ["check_options"]

ELSEWHERE = {  # what other frameworks call it, and what it is here
    "learning_rate": "lr",
    "alpha": "beta",
    "betas": "beta1=0.9, beta2=0.999",
    "rho": "beta",
    "beta_1": "beta1",
    "beta_2": "beta2",
    "epsilon": "eps",
    "l2": "weight_decay",
    "momentum": "gc.optim.Momentum(lr=0.01, momentum=0.9)",
    "clipnorm": "clip",
    "max_grad_norm": "clip",
    "bidirectional": "gc.cells.bidirectional(g, x, cell, units, over)",
    "num_layers": "gc.cells.stack(g, x, cell, units, layers, over)",
    "dropout": "gc.cells.stack(…, dropout=0.1), or gc.dropout",
    "batch_first": 'g.input("x", …, over=(n, t)): the order of its axes is that of the array',
    "go_backwards": "reverse",
    "initial_state": "initial",
    "h0": "initial",
    "hx": "initial",
    "stateful": "gc.step, or initial= an input",
    "kernel_initializer": "W_init",
    "recurrent_initializer": "U_init",
    "use_bias": "bias",
    "dtype": 'x of that dtype: g.input("x", …, dtype="float64")',
}


def check_options(what: str, given: Iterable[str], known: Sequence[str]) -> None:
    """Raise `DefinitionError` for a keyword argument that is not among the known ones."""
    for name in given:
        if name in known:
            continue
        instead = ELSEWHERE.get(name, "")
        own = instead.partition("=")[0]
        if own.isidentifier():
            instead = "" if own not in known else instead if "=" in instead else f"{instead}="
        hint = f"; write {instead}" if instead else meant(name, known)
        raise DefinitionError(f"{what} takes {', '.join(known)}, and no {name!r}{hint}")
