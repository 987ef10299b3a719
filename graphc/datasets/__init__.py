"""Data: recordings that ship with graphc, and photographs from folders and packages."""

from graphc.datasets.image_folder import Photograph, Photographs, photographs
from graphc.datasets.image_loader import ImageBatch, ImageLoader
from graphc.datasets.imdb_wiki import imdb_wiki
from graphc.datasets.orl import orl_faces
from graphc.datasets.vowels import Utterances, Vowels, japanese_vowels

__all__ = [
    "ImageBatch",
    "ImageLoader",
    "Photograph",
    "Photographs",
    "Utterances",
    "Vowels",
    "imdb_wiki",
    "japanese_vowels",
    "orl_faces",
    "photographs",
]
