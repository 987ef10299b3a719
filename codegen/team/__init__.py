"""The threads of a process, in native code (`team`, `team_code`), what calls them (`builtin`), and what a core of this
machine can do (`measure`, by `microbenchmarks`)."""
