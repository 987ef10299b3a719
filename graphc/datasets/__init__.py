"""Data that ships with graphc: small, real, and of different lengths."""

from graphc.datasets.vowels import Utterances, Vowels, japanese_vowels

__all__ = ["Utterances", "Vowels", "japanese_vowels"]
