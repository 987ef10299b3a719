"""The options of `gc.compile`, `gc.emit` and `gc.explain`: each is for one target, and refused for the other."""

from __future__ import annotations

from graphc.codegen.target import ON_CPU, PRECISIONS
from graphc.errors import UnsupportedError

TARGETS = ("cpu", "cuda")


def check_options(
    target: str, for_cpu: dict[str, object], for_cuda: dict[str, object], precision: str = "float32"
) -> None:
    """Raise `UnsupportedError` for an unknown target, an option that is given for the other target, and a precision
    that the target does not have. Options are by name; one that is not given is None."""
    if target not in TARGETS:
        raise UnsupportedError(f"no target {target!r}; use {' or '.join(f'target={name!r}' for name in TARGETS)}")
    other, options = ("cuda", for_cuda) if target == "cpu" else ("cpu", for_cpu)
    for name, value in options.items():
        if value is not None:
            raise UnsupportedError(f"{name}={value!r} is for target={other!r}")
    if precision not in PRECISIONS:
        raise UnsupportedError(f"no precision {precision!r}; there is {', '.join(PRECISIONS)}")
    if target == "cpu" and precision not in ON_CPU:
        raise UnsupportedError(
            f"precision={precision!r} is for target='cuda'; on a CPU there is {' and '.join(ON_CPU)}"
        )
