"""Compiled code at work: arguments in, `results` out, and the memory in between, on the `cpu` and on a GPU (`cuda`,
with launches and sizes for the lengths of a call in `cuda_layout`); arrays fixed for good (`freeze`) and calls with
their memory fixed (`cuda_bound`).
"""
