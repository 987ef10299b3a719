"""Training: params to begin with (`initialize`), a step as one graph (`training_step`), and the loop over epochs
(`fit`): which was the best (`best`), whether numbers are still numbers (`divergence`), and what is said meanwhile
(`terminal`). Files of arrays are in `graphc.checkpoint`."""
