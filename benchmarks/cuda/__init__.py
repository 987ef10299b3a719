"""Recurrent layers and the image model on a GPU, beside cuDNN through PyTorch, FlashRNN, and scans of JAX."""
