"""How the threads of a call share a Program: what can be cut and where they must meet (`partition`, `hazards`,
`wavefront`), what is best for the sizes of a call (`work_sharing`, `wavefront_schedule`), by a model of a `core` and
the `cost` of a kernel, and how the code is told of it: in a `table` with a `row` for each thread.
"""
