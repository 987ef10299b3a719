"""LLVM's machine for a target, and the target that a user names.

LLVM says what it does not know of a processor on standard error, makes code for another, and may end the process over
it. So a name of the user's is tried first.
"""

from __future__ import annotations

import functools
import os
import re
import tempfile
from collections.abc import Callable

import llvmlite.binding as llvm

from graphc.codegen.target import Target
from graphc.errors import ArgumentError, UnsupportedError

__all__ = ["machine_of", "pointer_bits", "target_named"]

# LLVM's names. They stand in its language, and in a comment of a C header, as they are.
_NAME = re.compile(r"[A-Za-z0-9_.+-]*")
_NAMES = {"triple": _NAME, "arch": _NAME, "features": re.compile(r"[A-Za-z0-9_.,+-]*")}
_NO_CPU = ("nvptx", "amdgcn", "r600", "spirv", "dxil", "bpf", "xcore")  # or none that runs C's functions as C does


def machine_of(target: Target) -> llvm.TargetMachine:
    """LLVM's machine for a target."""
    native = target.architecture == Target.host().architecture
    _initialize(everything=not native)
    return llvm.Target.from_triple(target.triple).create_target_machine(
        cpu=target.cpu, features=target.features, opt=3, reloc="pic", codemodel="default"
    )


def target_named(triple: str | None, arch: str = "", features: str = "") -> Target:
    """The target of these names; without any, this machine. Raises `ArgumentError` for names that LLVM does not know,
    `UnsupportedError` for a processor whose order of bytes is another."""
    if triple is None and not arch and not features:
        return Target.host()
    for word, name in {"triple": "" if triple is None else triple, "arch": arch, "features": features}.items():
        if not isinstance(name, str) or not _NAMES[word].fullmatch(name):
            raise ArgumentError(
                f"{word}={name!r} is no name of LLVM's, which are made of letters, digits, '_', '.', '-'"
            )
    target = Target(Target.host().triple if triple is None else triple, arch, features)
    _check(target)
    return target


def pointer_bits(target: Target) -> int:
    """How many bits an address has."""
    stated = re.search(r"-p:(\d+):", str(machine_of(target).target_data))
    return int(stated[1]) if stated else 64


@functools.cache
def _check(target: Target) -> None:
    if target.architecture.startswith(_NO_CPU):
        raise ArgumentError(
            f"{target.triple} is no processor that a C function is made for; gc.emit(g, target='cuda') is for GPUs"
        )
    wrong = [feature for feature in target.features.split(",") if feature and feature[0] not in "+-"]
    if wrong:
        raise ArgumentError(f"features={target.features!r} has no sign before {wrong[0]!r}; write '+{wrong[0]}'")
    _initialize(everything=True)
    try:
        llvm.Target.from_triple(target.triple)
    except RuntimeError as error:
        example = "a triple of LLVM's, such as 'aarch64-linux-gnu' or 'thumbv7em-none-eabihf', was expected"
        raise ArgumentError(f"no code can be made for triple={target.triple!r}: {error}; {example}") from None
    unknown = _said(lambda: machine_of(target)).partition(" (ignoring")[0]
    if unknown:
        raise ArgumentError(
            f"{unknown}, {target.triple}; arch= and features= take the names that `llc -mtriple=… -mcpu=help` lists"
        )
    if str(machine_of(target).target_data).startswith("E"):
        raise UnsupportedError(f"{target.triple} keeps numbers with the high byte first; code has the low byte first")


def _said(make: Callable[[], object]) -> str:
    """What LLVM writes to standard error meanwhile."""
    with tempfile.TemporaryFile() as file:
        kept = os.dup(2)
        os.dup2(file.fileno(), 2)
        try:
            make()
        finally:
            os.dup2(kept, 2)
            os.close(kept)
        file.seek(0)
        return file.read().decode(errors="replace")


@functools.cache
def _initialize(everything: bool) -> None:
    if everything:
        llvm.initialize_all_targets()
        llvm.initialize_all_asmprinters()
    else:
        llvm.initialize_native_target()
        llvm.initialize_native_asmprinter()
