"""Back ends: the loop IR (`program`), its interpreter and verifier (`interpret_program`, `verify_program`), and the
code made from it for a `target`, which a `disk_cache` keeps. What passes and back ends ask of a Program: `uses` (which
names and buffers its parts use), `access` (what scalars depend on, and how addresses move), `halves` (which of them lie
in pairs), `lengths`."""
