"""NVIDIA's driver (`driver`), launches in its words (`driver_structs`), and arrays (`dlpack`) and `streams` of other
libraries."""
