"""A graph as a module of PyTorch. Needs PyTorch (the extra `torch`)."""

from graphc.torch.module import Module

__all__ = ["Module"]
