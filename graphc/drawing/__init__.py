"""Drawing graphs: `picture` says what is to be seen, `collapse` makes large graphs small, `columns` and `dot` place and
write it, `layout` finds the engine that draws it, and `draw` is the way in."""
