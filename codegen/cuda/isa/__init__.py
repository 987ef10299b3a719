"""The GPU as generated code sees it: the figures of each generation (`arch`), its instructions (`device`, `mma`), a
thread's position in its group (`place`), and indices that move by a fixed stride (`odometer`)."""
