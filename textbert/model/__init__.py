"""Archives, configuration, formats and sources of weights, the fast BERT, its loading and its logits."""
