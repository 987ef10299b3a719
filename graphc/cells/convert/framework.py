"""A library as a value: its cells, the order of its gates, its arrays, and the way from them to ours and back."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from graphc.cells.convert.forms import RESETS, Form, with_biases_of_0
from graphc.cells.convert.names import Place, by_place
from graphc.cells.convert.shapes import Arrays, Shapes, Sizes, described, misfits
from graphc.errors import DefinitionError


@dataclass(frozen=True)
class Framework:
    """What a library has for one layer in one direction.

    gates     the gates of each cell in its order, by our letters
    arrays    the arrays of a form, with their shapes
    unpack    from those arrays to our params, with z as in `gru(update="old")`
    pack      the other way
    variant   the form that these arrays, or these params, are of, where one name of a cell stands for several
    resets    where its GRU may reset; the first is its default
    stacks    several layers are one module
    biasless  a layer may have no biases
    """

    name: str
    gates: Mapping[str, str]
    arrays: Callable[[Form], Shapes]
    unpack: Callable[[Form, Arrays], Arrays]
    pack: Callable[[Form, Arrays], Arrays]
    variant: Callable[[Form, Arrays], Form] = lambda form, own: form
    resets: tuple[str, ...] = ("after",)
    stacks: bool = False
    biasless: bool = True

    def has(self, form: Form) -> bool:
        """Is there such a cell?"""
        return form.cell in self.gates and (form.cell != "gru" or form.reset in self.resets)

    def form(self, cell: str, bias: bool, reset: str | None = None) -> Form:
        """What the user asked for, checked."""
        if not isinstance(cell, str) or cell not in self.gates:
            raise DefinitionError(f"{self.name} has the cells {', '.join(self.gates)}, not {cell!r}")
        if not isinstance(bias, bool | np.bool_):
            raise DefinitionError(f"a cell is made with bias=True or bias=False, got bias={bias!r}")
        if reset not in (None, *RESETS):
            raise DefinitionError(f'a GRU resets "before" or "after" the product, got reset={reset!r}')
        return Form(cell, bias, reset or self.resets[0])

    def read(self, parts: Mapping[Place, Arrays], form: Form, name: str | None, update: str) -> Arrays:
        """The library's arrays to our params. Biases that a cell has and the layer has not are 0."""
        _check_options(name, update)
        params: Arrays = {}
        sizes: dict[int | None, Sizes] = {}
        for place, own in parts.items():
            own_form = self.variant(form, own)
            own_form = replace(own_form, bias=not self.biasless or self._biased(own, own_form))
            if own_form.bias and not form.bias:
                raise DefinitionError(
                    "these weights have biases, which a cell with bias=False has not; leave bias=False out"
                )
            self._check(own, own_form, self.arrays, place, sizes)
            found = self.unpack(own_form, own)
            if form.bias and not own_form.bias:
                found = with_biases_of_0(found, replace(own_form, bias=True))
            label = place.label(name or form.cell)
            params |= {f"{label}_{k}": a for k, a in _turned(found, form, update).items()}
        return _own(params)

    def write(self, params: Mapping[str, Any], form: Form, name: str | None, update: str) -> dict[Place, Arrays]:
        """Our params to the library's arrays."""
        _check_options(name, update)
        name = name or form.cell
        found = by_place(params, name)
        self._check_layers(found, name)
        sizes: dict[int | None, Sizes] = {}
        parts = {}
        for place, own in found.items():
            own_form = self.variant(form, own)
            self._check(own, own_form, Form.params, place, sizes)
            if not (form.bias or self.biasless):
                own_form = replace(own_form, bias=True)
                own = with_biases_of_0(own, own_form)
            parts[place] = _own(self.pack(own_form, _turned(own, form, update)))
        return parts

    def _biased(self, own: Arrays, form: Form) -> bool:
        """Has the layer an array that only one with biases has?"""
        with_bias, without = (self.arrays(replace(form, bias=bias)) for bias in (True, False))
        return bool(set(own) & (set(with_bias) - set(without)))

    def _check(
        self,
        own: Arrays,
        form: Form,
        shapes: Callable[[Form], Shapes],
        place: Place,
        sizes: dict[int | None, Sizes],
    ) -> None:
        """Are these the arrays of that form? Both directions of a layer have as many inputs and units."""
        known = sizes.setdefault(place.layer, {})
        wrong = misfits(own, shapes(form), known)
        if not wrong:
            return
        where = place.label("")[1:].replace("_", " ")
        has = f"for {self.name}'s {form.cell} a cell has" if shapes is Form.params else f"{self.name}'s {form.cell} has"
        numbers = ", ".join(f"{letter} = {size}" for letter, size in sorted(known.items()))
        raise DefinitionError(
            f"{has} {described(shapes(form))}"
            + (f", here with {numbers}" if numbers else "")
            + (f"; {where}:" if where else ";")
            + ";".join(f" {what}: {', '.join(names)}" for what, names in wrong.items())
            + self._way_out(own, form, shapes)
        )

    def _way_out(self, own: Arrays, form: Form, shapes: Callable[[Form], Shapes]) -> str:
        """The options with which these arrays fit, or the reason why none do."""
        if not misfits(own, shapes(form), {}):
            one_by_one = "" if self.stacks else "; layers of a stack are converted one by one"
            return f"; both directions of a layer have as many inputs and units{one_by_one}"
        for other in form.others():
            offered = self.has(other)
            if (offered or shapes is Form.params) and not misfits(own, shapes(other), {}):
                options = ", ".join(form.differences(other))
                if offered:
                    return f"; give {options}, which these fit"
                return f"; these are of {options}, another function, which {self.name} does not have"
        return ""

    def _check_layers(self, found: Iterable[Place], name: str) -> None:
        labels = [place.label(name) for place in dict.fromkeys(Place(p.layer) for p in found if p.layer is not None)]
        if labels and not self.stacks:
            raise DefinitionError(
                f"{self.name} has the layers of a stack one by one; convert each by its own name: "
                f"{', '.join(map(repr, labels))}"
            )


def _check_options(name: str | None, update: str) -> None:
    if not isinstance(name, str | None):
        raise DefinitionError(f"the name of a cell is a text, got name={name!r}")
    if update not in ("old", "new"):
        raise DefinitionError(f'the update gate of a GRU lets through the "new" or the "old", got {update!r}')


def _turned(own: Arrays, form: Form, update: str) -> Arrays:
    """Between update="old", which all libraries have, and ours: σ(-a) = 1 - σ(a)."""
    turn = form.cell == "gru" and update == "new"
    return {k: -a if turn and k.endswith("_z") else a for k, a in own.items()}


def _own(arrays: Arrays) -> Arrays:
    """Arrays that share no memory with those that were given: params are updated in place."""
    return {k: np.array(a, order="C") for k, a in arrays.items()}
