"""From a graph to a Program for each back end, pass by pass: `stages` for the CPU, and `cuda_code` from there for a
GPU."""
