"""Benchmarks: graphc beside PyTorch, JAX and ONNX Runtime, in one process, on the same arrays.

    python -m benchmarks [--only streaming --only linear …] [--quick] [--threads 2] [--output FOLDER]

problems     what is computed: sizes, arrays, and the graph
cells        the cells, each as graphc's and as one step over packed weights
peers        one module a library: how it computes a problem
timing       calls in turn, medians and quartiles
disturbance  what other processes took meanwhile
compare      equal results first, then times
workloads    one module a workload: which problems, which peers
report       the table, the JSON file and the plots
"""

import os

os.environ["GRAPHC_CACHE"] = ""  # what compiling takes is taken the first time
