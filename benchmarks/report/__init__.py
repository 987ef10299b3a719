"""What was measured, for people (`table`), for programs (`record`), and at a glance (`plot`)."""
