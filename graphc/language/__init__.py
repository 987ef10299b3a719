"""What a user writes with: a `graph` of declarations, each a `value` with Python's operators and `subscripts`, and the
functions of values, from `functions` (named as in numpy and PyTorch) to `einsum`, `probabilities`, `ctc`, `randomness`
and those of images, whose windows are `geometry`. `habits` refuses what a value cannot do and `options` what a function
does not take, each with what to write instead; `initialisers` says how params begin, and `network` shows a graph to
networkx.
"""
