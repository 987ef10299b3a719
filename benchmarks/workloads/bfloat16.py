"""Products of bfloat16 instead of float32, in and out of training; beside graphc's own time for float32."""

from __future__ import annotations

from benchmarks.compare import Comparison
from benchmarks.problems import Sequence


def comparisons(quick: bool) -> list[Comparison]:
    batches = (("LSTM", 128, 32, 256), ("LSTM", 128, 64, 512), ("GRU", 128, 32, 256))[: 1 if quick else None]
    custom = [] if quick else [("peephole LSTM", 256, 16, 128), ("sLSTM", 256, 16, 128), ("LEM", 256, 16, 128)]
    return [
        *(
            Comparison("bfloat16", work, Sequence(*sizes, precision="bf16"))
            for sizes in (*batches, *custom)
            for work in ("forward", "training")
        ),
        *(
            Comparison("bfloat16", "forward", Sequence("LSTM", 1024, 1, units, precision="bf16"), per_step=True)
            for units in ((128,) if quick else (64, 128, 256))
        ),
    ]
