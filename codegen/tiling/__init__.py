"""The tile that a kernel is computed in: which loop runs in vector lanes, and which in registers side by side
(`vectorize`), and how many of them (`tile`).
"""
