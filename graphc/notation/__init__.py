"""Graphs as text: `text` prints them as equations, `parse` reads those back."""
