"""Training: params to begin with (`initialize`), a step as one graph (`training_step`), and the loop over epochs
(`fit`). Files of arrays are in `graphc.checkpoint`."""
