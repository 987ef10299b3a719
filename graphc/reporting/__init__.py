"""What the compiler made of a graph, in words and figures: `explain` says what was chosen for each cycle and why (by
`explanation`, `alternatives`, `loop_summary` and `feeds`), `profile` what each part of a call takes."""
