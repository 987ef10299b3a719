"""A job as a builtin function of Python's own, made in memory: calling it costs 0.06 µs, where a foreign call by ctypes
costs 0.3, as much as the code of a small step.

In: a `Job`, the object that every call gives back, what is raised if it is running already, and all that must live as
long as it can be called. Out: a function of no arguments. Other threads of Python run meanwhile.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable
from typing import Any

import llvmlite.binding as llvm

from graphc.codegen.cpu.jit import native
from graphc.codegen.target import Target
from graphc.codegen.team.team import Job, run_address, team

__all__ = ["builtin"]

_NO_ARGUMENTS = 4  # METH_NOARGS of Python's C interface


class _Call(ctypes.Structure):
    """What the native function works on."""

    _fields_ = (
        ("job", ctypes.c_void_p),
        ("result", ctypes.py_object),
        ("error", ctypes.py_object),  # its class
        ("message", ctypes.c_char_p),
        ("busy", ctypes.c_int32),
    )


class _Definition(ctypes.Structure):
    """Python's PyMethodDef."""

    _fields_ = (
        ("name", ctypes.c_char_p),
        ("function", ctypes.c_void_p),
        ("flags", ctypes.c_int),
        ("doc", ctypes.c_char_p),
    )


def builtin(job: Job, result: object, error: type[Exception], message: str, kept: object) -> Callable[[], Any]:
    """A function that runs a job and gives `result`. It raises `error(message)` if it is called while it runs. `kept`
    lives as long as it."""
    call = _Call(ctypes.addressof(job), result, error, message.encode(), 0)
    definition, code = _definition()
    owner = (call, definition, code, job, kept)
    made: Callable[[], Any] = _new()(ctypes.addressof(definition), ctypes.addressof(call), owner)
    return made


@functools.cache
def _new() -> Any:
    """`new(definition, self, owner)`: a builtin that keeps its owner."""
    new = ctypes.PYFUNCTYPE(ctypes.py_object, ctypes.c_void_p, ctypes.py_object, ctypes.py_object)
    return new(("PyCFunction_NewEx", ctypes.pythonapi))


@functools.cache
def _definition() -> tuple[_Definition, llvm.ResourceTracker]:
    """What Python knows of the function, and its code, compiled once for the process."""
    machine = Target.host()
    code = native(_text(machine), machine, "call")
    return _Definition(b"call", code["call"], _NO_ARGUMENTS, None), code


def _text(target: Target) -> str:
    field = {name: f"getelementptr i8, ptr %call, i64 {getattr(_Call, name).offset}" for name, _ in _Call._fields_}
    return f"""\
target triple = "{target.triple}"

define ptr @call(ptr %self, ptr %nothing) {{
  %call = call ptr {_python("PyLong_AsVoidPtr")}(ptr %self)
  %at.busy = {field["busy"]}
  %claimed = cmpxchg ptr %at.busy, i32 0, i32 1 acq_rel monotonic
  %free = extractvalue {{ i32, i1 }} %claimed, 1
  br i1 %free, label %run, label %refuse
run:
  %at.job = {field["job"]}
  %job = load ptr, ptr %at.job
  %thread = call ptr {_python("PyEval_SaveThread")}()
  %team = load atomic ptr, ptr {_pointer(team.where)} acquire, align 8
  call void {_pointer(run_address())}(ptr %team, ptr %job)
  call void {_python("PyEval_RestoreThread")}(ptr %thread)
  store atomic i32 0, ptr %at.busy release, align 4
  %at.result = {field["result"]}
  %result = load ptr, ptr %at.result
  %given = call ptr {_python("Py_NewRef")}(ptr %result)
  ret ptr %given
refuse:
  %at.error = {field["error"]}
  %error = load ptr, ptr %at.error
  %at.message = {field["message"]}
  %message = load ptr, ptr %at.message
  call void {_python("PyErr_SetString")}(ptr %error, ptr %message)
  ret ptr null
}}
"""


def _python(function: str) -> str:
    """A function of Python's C interface."""
    return _pointer(ctypes.cast(getattr(ctypes.pythonapi, function), ctypes.c_void_p).value or 0)


def _pointer(address: int) -> str:
    return f"inttoptr (i64 {address} to ptr)"
