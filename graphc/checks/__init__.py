"""What is checked before anything is computed: a graph (`verify`), its cycles (`causality`), the arrays of a call
(`arguments`), and the indices among them (`index_checks`)."""
