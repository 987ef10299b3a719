"""`ld`, `st`, `ldu`, and addresses: `cvta`, `mapa`, `isspacep`, `getctarank`; prefetches, of memory that there is, do
nothing."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from tests.ptx import kinds
from tests.ptx.access import LOCAL_WINDOW, RANK_SHIFT, SHARED_WINDOW, Kind, check_there, load, store
from tests.ptx.elementwise import Builder, only, type_of
from tests.ptx.group import Group
from tests.ptx.kinds import Array
from tests.ptx.operands import Decoder, Reader, Step
from tests.ptx.syntax import Address, Immediate, Instruction, Register, Symbol, Vector

SCOPES = ("cta", "cluster", "gpu", "sys")
STRENGTHS = ("weak", "volatile", "relaxed", "acquire", "release", "mmio")
_CACHES = (
    "ca", "cg", "cs", "lu", "cv", "wb", "wt", "nc", "L1::evict_normal", "L1::evict_unchanged", "L1::evict_first",
    "L1::evict_last", "L1::no_allocate", "L2::evict_normal", "L2::evict_last", "L2::evict_first", "L2::64B",
    "L2::128B", "L2::256B",
)  # fmt: skip
SPACES = {
    "global": "global", "const": "global", "shared": "shared", "shared::cta": "shared", "shared::cluster": "cluster",
    "local": "local", "param": "global", "param::entry": "global", "param::func": "local",
}  # fmt: skip


def space_of(i: Instruction, d: Decoder, address: Address) -> str:
    """The state space of an access; parameters of inlined functions are local memory."""
    named = i.one_of(*SPACES)
    if named.startswith("param") and isinstance(address.base, Symbol) and address.base.name in d.program.local:
        return "local"
    return SPACES.get(named, "generic")


def kind_of(i: Instruction, d: Decoder, address: Address, size: int) -> Kind:
    """How a load, store or atomic touches memory."""
    acquire, release = bool(i.one_of("acquire", "acq_rel")), bool(i.one_of("release", "acq_rel"))
    strong = acquire or release or bool(i.one_of("volatile", "relaxed", "mmio"))
    default = "sys" if i.has("volatile") else "gpu"
    return Kind(i, space_of(i, d, address), size, strong, i.one_of(*SCOPES, default=default), acquire, release)


def address_reader(d: Decoder, address: Address) -> Reader:
    """The addresses of an operand in its own state space."""
    base, offset = address.base, np.uint64(address.offset & (2**64 - 1))
    if isinstance(base, Symbol):
        constant = np.array([d.address_of(base)], np.uint64) + offset
        return lambda g: constant
    if isinstance(base, Immediate):
        fixed = np.array([base.value & (2**64 - 1)], np.uint64) + offset
        return lambda g: fixed
    read = d.reader(base, f"u{base.bits}")
    if base.bits < 64:
        return lambda g: read(g).astype(np.uint64) + offset
    return (lambda g: read(g) + offset) if address.offset else read


def _operand(i: Instruction, d: Decoder, place: int) -> Address:
    operand = i.operands[place]
    if not isinstance(operand, Address):
        raise d.unknown(i, "it needs an address in brackets")
    return operand


def _vector(i: Instruction) -> int:
    return {"v2": 2, "v4": 4, "v8": 8}.get(i.one_of("v2", "v4", "v8"), 1)


def access_size(i: Instruction) -> int:
    """The bytes of the smallest part of memory that an instruction may touch on its own; 8 where it touches none."""
    if i.opcode in ("ld", "ldu", "st", "atom", "red") and not i.one_of("param", "param::entry", "param::func"):
        return min([8, *(kinds.bits(m) // 8 for m in i.modifiers if kinds.is_type(m))])
    return 8


def build_load(i: Instruction, d: Decoder) -> Step:
    only(i, d, *SPACES, *SCOPES, *STRENGTHS, *_CACHES, "v2", "v4", "v8")
    kind_name, count, address = type_of(i, d), _vector(i), _operand(i, d, 1)
    dtype = kinds.dtype(f"b{kinds.bits(kind_name)}") if kind_name[0] != "s" else kinds.dtype(kind_name)
    writers = [d.writer(o) for o in d.items(i.operands[0])]
    if (
        i.one_of("param", "param::entry")
        and isinstance(address.base, Symbol)
        and address.base.name in d.program.parameters
    ):
        return _load_parameter(address, d, dtype.itemsize, dtype, writers)
    kind = kind_of(i, d, address, dtype.itemsize * count)
    read = address_reader(d, address)
    write = writers[0]

    def single(g: Group) -> None:
        write(g, load(g, kind, read(g), dtype, 1)[0])

    def several(g: Group) -> None:
        for part, values in zip(writers, load(g, kind, read(g), dtype, count), strict=True):
            part(g, values)

    return single if count == 1 else several


def _load_parameter(
    address: Address, d: Decoder, size: int, dtype: np.dtype, writers: list[Callable[[Group, Array], None]]
) -> Step:
    assert isinstance(address.base, Symbol)
    start = d.program.parameters[address.base.name][0] + address.base.offset + address.offset

    def step(g: Group) -> None:
        block = g.machine.parameters
        for k, write in enumerate(writers):
            write(g, block[start + k * size : start + (k + 1) * size].view(dtype))

    return step


def build_store(i: Instruction, d: Decoder) -> Step:
    only(i, d, *SPACES, *SCOPES, *STRENGTHS, *_CACHES, "v2", "v4", "v8")
    kind_name, count, address = type_of(i, d), _vector(i), _operand(i, d, 0)
    size = kinds.bits(kind_name)
    kind = kind_of(i, d, address, size // 8 * count)
    read = address_reader(d, address)
    sources = list(i.operands[1].items) if isinstance(i.operands[1], Vector) and count > 1 else [i.operands[1]]
    values = [d.reader(o, kind_name if kind_name[0] == "f" else f"b{size}") for o in sources]

    def step(g: Group) -> None:
        store(g, kind, read(g), [v(g) for v in values])

    return step


def convert_address(i: Instruction, d: Decoder) -> Step:
    """`cvta`, `cvta.to`: between a state space and generic addresses, which differ for shared and local memory."""
    only(i, d, "to", *SPACES)
    space = SPACES[i.one_of(*SPACES)]
    base = {"global": 0, "shared": SHARED_WINDOW, "cluster": SHARED_WINDOW, "local": LOCAL_WINDOW}[space]
    shift = np.uint64(-base & (2**64 - 1) if i.has("to") else base)
    source = i.operands[1]
    wide = isinstance(source, Symbol) or not isinstance(source, Register) or source.bits == 64
    read, write = d.reader(source, "u64" if wide else "u32"), d.writer(i.operands[0])
    return lambda g: write(g, read(g).astype(np.uint64) + shift)


def map_address(i: Instruction, d: Decoder) -> Step:
    """`mapa`: the address that a shared variable has in the CTA of a given rank; generic ones stay generic."""
    only(i, d, "shared::cluster")
    kind = type_of(i, d)
    read, rank, write = d.reader(i.operands[1], kind), d.reader(i.operands[2], "u32"), d.writer(i.operands[0])
    low = np.uint64((1 << RANK_SHIFT) - 1)
    base = np.uint64(0 if i.has("shared::cluster") else SHARED_WINDOW)

    def step(g: Group) -> None:
        place = (rank(g).astype(np.uint64) + np.uint64(1)) << np.uint64(RANK_SHIFT)
        write(g, (base | place | (read(g).astype(np.uint64) & low)).astype(kinds.dtype(kind)))

    return step


def rank_of_address(i: Instruction, d: Decoder) -> Step:
    """`getctarank`: whose shared memory an address is in."""
    read, write = d.reader(i.operands[1], type_of(i, d)), d.writer(i.operands[0])

    def step(g: Group) -> None:
        rank = (read(g).astype(np.uint64) & np.uint64(0xFFFFFFFF)) >> np.uint64(RANK_SHIFT)
        own = g.choose(g.machine.special("%cluster_ctarank"))
        write(g, np.where(rank == 0, own, (rank - np.uint64(1)).astype(np.uint32)))

    return step


def is_in_space(i: Instruction, d: Decoder) -> Step:
    """`isspacep`: whether a generic address lies in a space."""
    space = SPACES[i.one_of(*SPACES)]
    window = {"shared": SHARED_WINDOW >> 32, "cluster": SHARED_WINDOW >> 32, "local": LOCAL_WINDOW >> 32}.get(space)
    read, write = d.reader(i.operands[1], "u64"), d.writer(i.operands[0])
    others = np.array([SHARED_WINDOW >> 32, LOCAL_WINDOW >> 32], np.uint64)

    def step(g: Group) -> None:
        found = read(g) >> np.uint64(32)
        write(g, ~np.isin(found, others) if window is None else found == window)

    return step


def prefetch(i: Instruction, d: Decoder) -> Step:
    """Brings memory nearer, which must be there; whether it has been written is all the same."""
    address = _operand(i, d, 0)
    kind, read = kind_of(i, d, address, 1), address_reader(d, address)
    return lambda g: check_there(g, kind, read(g))


def ignore(i: Instruction, d: Decoder) -> Step:
    """An instruction that has no effect here."""
    return lambda g: None


INSTRUCTIONS: dict[str, Builder] = {
    "ld": build_load,
    "ldu": build_load,
    "st": build_store,
    "cvta": convert_address,
    "mapa": map_address,
    "getctarank": rank_of_address,
    "isspacep": is_in_space,
    "prefetch": prefetch,
    "prefetchu": ignore,
    "discard": ignore,
    "applypriority": ignore,
}
