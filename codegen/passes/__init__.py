"""Passes from a Program to one that computes the same with less work or better access: how data lies (`layout`, `pack`,
`pairs`, `padding`, `materialize`), in which precision (`round_operands`), what is added up where (`merge_sums`,
`merge_stored_sums`, `fission`, `split_reduction` with `subtotals`, `vector_epilogue`, `predication`, `scatter` with
`segment_sum`), which dims there are (`collapse`, `split`), what is known beforehand (`prologue`, `specialize`)."""
