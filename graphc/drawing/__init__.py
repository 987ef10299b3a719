"""Drawing graphs: `picture` says what is to be seen, `layers` what belongs together, `collapse` makes large graphs
small, `columns`, `lines` and `dot` place and write it, `layout` finds the engine that draws it, and `draw` is the way
in."""
