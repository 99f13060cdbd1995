"""Tokenization identical to BERT's, features and their files, conversion in several processes, batches by length."""

# pickles name the classes by this package, and plain `pickle.load` must find them here
from textbert.features.features import Features, InputFeatures

__all__ = ["Features", "InputFeatures"]
