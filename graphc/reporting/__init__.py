"""What the compiler made of a graph, in words and figures.

`explain` says what was chosen for each cycle and why: an `explanation`, on a GPU a `cuda_explanation`, of what
`alternatives`, `feeds` and `loop_summary` find. `profile`, on a GPU `cuda_profile`, measures what each part of a call
takes, and tells it as a `profile_table` in `profile_words`. `phrases` are common to all.
"""
