"""What a user compiles: `compile` for the CPU, `cuda_compile` for a GPU, `emit` for any machine, and `export` for
programs in C, with names that C allows (`c_names`)."""
