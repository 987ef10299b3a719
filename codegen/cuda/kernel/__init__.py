"""A kernel's points: their `scalars` in the registers of a thread, each point by a thread, a warp or a CTA (`points`),
or found by its terms (`search`)."""
