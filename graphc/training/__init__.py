"""Training: params to begin with (`initialize`), a step as one graph (`training_step`), and the loop over epochs
(`fit`), of which the best may be kept (`best`). Files of arrays are in `graphc.checkpoint`."""
