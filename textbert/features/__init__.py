"""Tokenization exactly as BERT's, features and their file, conversion in several processes, batches by length."""

# pickles of features name this package: it must have the classes in them, for plain `pickle.load`, too
from textbert.features.features import Features, InputFeatures

__all__ = ["Features", "InputFeatures"]
