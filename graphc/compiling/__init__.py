"""What a user compiles: `compile` for the CPU, `cuda_compile` for a GPU, and `export` for programs in C."""
