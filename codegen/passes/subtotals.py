"""A reduction in two kernels: one stores subtotals, the other adds them up.

    s[c] = Σ x[p, c] over all p    becomes    p[k, c] = Σ x[p, c] over the p of part k;    s[c] = Σ p[k, c] over k

In: a kernel with one reduction, a dim that counts the parts, and the reduction over one part. Out: both kernels, and
the buffers between them, whose first dim counts the parts. What a part is, `graphc.codegen.passes.split_reduction` and
`graphc.codegen.cuda.split_reduction` choose.
"""

from __future__ import annotations

from dataclasses import replace

from graphc.codegen.program import Buffer, Dim, Kernel, Load, Reduce, Ref, Store, indices_of

__all__ = ["subtotals"]


def subtotals(kernel: Kernel, reduce: Reduce, part: Reduce, parts: Dim, name: str) -> tuple[list[Buffer], list[Kernel]]:
    """The buffers, and the kernels in order. `reduce` is the kernel's reduction, `part` that over one part, and `name`
    the first kernel's."""
    dims = (parts, *kernel.dims)
    at = indices_of(dims)
    extents = tuple(dim.extent for dim in dims)
    buffers = [Buffer(f"{kernel.name}.{total.name}", total.value.dtype, extents, "temp") for total in reduce.sums]
    pairs = list(zip(buffers, reduce.sums, strict=True))
    before = kernel.body[: kernel.body.index(reduce)]
    stores = tuple(Store(buffer.name, at, Ref(total.name, buffer.dtype)) for buffer, total in pairs)
    sums = tuple(replace(total, value=Load(buffer.name, at, buffer.dtype)) for buffer, total in pairs)
    whole = Reduce((parts,), sums)
    return buffers, [
        Kernel(f"{kernel.name}.{name}", dims, (*before, part), stores),
        replace(kernel, body=tuple(whole if step is reduce else step for step in kernel.body)),
    ]
