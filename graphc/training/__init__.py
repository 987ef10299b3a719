"""Training: params to begin with (`initialize`), a step as one graph (`training_step`), the loop over epochs (`fit`),
and files of arrays (`checkpoint`).
"""
