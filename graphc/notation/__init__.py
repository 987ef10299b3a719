"""Graphs as text: `text` prints them as equations, in the order of `declarations`; `parse` reads those back, each right
side by `expression`, with its ops' `attributes`. `literals` are constants, both ways.
"""
