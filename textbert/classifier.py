"""Where `Classifier` was until version 1.0: programs and exported READMEs that import it from here go on working."""

from textbert.inference.classifier import Classifier as Classifier
