"""Target: the machine that code is made for. A parameter of the CPU back end, never the host by accident."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Literal

import llvmlite.binding as llvm

__all__ = ["ON_CPU", "PRECISIONS", "Precision", "Target"]

# What float32 operands of products are rounded to, and which of that there is on a CPU.
Precision = Literal["float32", "bf16", "f16", "tf32"]
PRECISIONS: tuple[Precision, ...] = ("float32", "bf16", "f16", "tf32")
ON_CPU: tuple[Precision, ...] = ("float32", "bf16")

# Processors whose name alone promises more than their architecture does; others say so in `features`.
_X86_LEVELS = {
    "x86-64-v2": "sse4.1",
    "x86-64-v3": "avx2 fma f16c",
    "haswell": "avx2 fma f16c",
    "skylake": "avx2 fma f16c",
    "znver2": "avx2 fma f16c",
    "znver3": "avx2 fma f16c",
    "x86-64-v4": "avx512f avx2 fma f16c",
    "skylake-avx512": "avx512f avx2 fma f16c",
    "icelake-server": "avx512f avx2 fma f16c",
    "sapphirerapids": "avx512f avx2 fma f16c avx512bf16",
    "znver4": "avx512f avx2 fma f16c avx512bf16",
}


_SYSTEMS = ("none", "linux", "freebsd", "netbsd", "openbsd", "windows", "darwin")


@dataclass(frozen=True, slots=True)
class Target:
    """An LLVM triple, a processor and features ("+avx2,+fma"), and the vector unit that follows from them.

    A triple may leave out the vendor, as compilers let one do. LLVM itself would take the system of
    "thumbv7em-none-eabihf" for the vendor, and overlook that numbers are passed in registers.
    """

    triple: str
    cpu: str = ""
    features: str = ""

    def __post_init__(self) -> None:
        architecture, *rest = self.triple.split("-")
        if rest and rest[0] in _SYSTEMS:
            object.__setattr__(self, "triple", "-".join([architecture, "unknown", *rest]))

    @staticmethod
    @functools.cache
    def host() -> Target:
        """The machine this process runs on."""
        features = llvm.get_host_cpu_features().flatten()
        return Target(llvm.get_default_triple(), llvm.get_host_cpu_name(), features)

    def has(self, feature: str) -> bool:
        """Whether the processor is known to have a feature, or the feature is asked for; and it is not refused."""
        named = _X86_LEVELS.get(self.cpu, "").split()
        requested = self.features.split(",")
        return f"-{feature}" not in requested and (f"+{feature}" in requested or feature in named)

    @property
    def architecture(self) -> str:
        """The first part of the triple."""
        return self.triple.split("-")[0]

    @property
    def is_x86(self) -> bool:
        """Whether it is a 64-bit x86."""
        return self.architecture in ("x86_64", "amd64")

    @property
    def is_arm64(self) -> bool:
        """Whether it is a 64-bit Arm."""
        return self.architecture.startswith(("aarch64", "arm64"))

    @property
    def vector_bits(self) -> int:
        """Bits of a vector register; 0 where there are none, and all code is scalar."""
        if self.is_x86:
            return 512 if self.has("avx512f") else 256 if self.has("avx2") else 128
        if self.is_arm64:
            return 128
        vectors = {"riscv": "v", "wasm": "simd128", "arm": "neon", "thumb": "neon"}
        feature = next((f for prefix, f in vectors.items() if self.architecture.startswith(prefix)), None)
        return 128 if feature and self.has(feature) else 0

    @property
    def vector_registers(self) -> int:
        """How many vector registers there are."""
        wide = self.has("avx512f") if self.is_x86 else self.is_arm64 or self.architecture.startswith("riscv")
        return 32 if wide else 16

    @property
    def has_fma(self) -> bool:
        """Whether a fused multiply-add is one instruction; elsewhere it would be a call into libm."""
        if self.is_x86:
            return self.has("fma")
        return self.is_arm64 or self.architecture.startswith("nvptx")

    @property
    def has_floor(self) -> bool:
        """Whether rounding down is one instruction."""
        if self.is_x86:
            return self.vector_bits > 128 or self.has("sse4.1")
        return self.is_arm64 or self.architecture.startswith(("nvptx", "wasm"))

    @property
    def has_half(self) -> bool:
        """Whether one instruction makes a float16 a float32, and one the reverse; elsewhere it would be a library
        call."""
        if self.is_x86:
            return self.has("f16c")
        return self.is_arm64 or self.architecture.startswith("nvptx")

    @property
    def has_dot(self) -> bool:
        """Whether one instruction adds two products of bfloat16s to the float32 in each lane of a whole register."""
        return self.vector_bits == 512 and self.has("avx512bf16")

    def lanes(self, bytes_per_lane: int) -> int:
        """How many elements of the given size one vector register holds: at least one."""
        return max(1, self.vector_bits // (8 * bytes_per_lane))
