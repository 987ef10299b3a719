"""The code of one kernel: a function's `parameters`; its `scalars` in a thread's registers; its points, each computed
by a thread, a warp or a CTA (`points`); and sums whose terms each row searches for (`search`)."""
