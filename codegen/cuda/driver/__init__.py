"""NVIDIA's driver: calls of it (`driver`) and its structures for a launch (`driver_structs`); arrays (`dlpack`) and
`streams` of other libraries."""
