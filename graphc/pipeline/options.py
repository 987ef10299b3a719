"""The options of `gc.compile`, `gc.emit` and `gc.explain`: each is for one target, and refused for the other."""

from __future__ import annotations

from graphc.errors import UnsupportedError

TARGETS = ("cpu", "cuda")


def check_options(target: str, for_cpu: dict[str, object], for_cuda: dict[str, object]) -> None:
    """Raise `UnsupportedError` for an unknown target, and for an option that is given for the other target. Options
    are by name; one that is not given is None."""
    if target not in TARGETS:
        raise UnsupportedError(f"no target {target!r}; use {' or '.join(f'target={name!r}' for name in TARGETS)}")
    other, options = ("cuda", for_cuda) if target == "cpu" else ("cpu", for_cpu)
    for name, value in options.items():
        if value is not None:
            raise UnsupportedError(f"{name}={value!r} is for target={other!r}")
