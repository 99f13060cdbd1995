"""Archives, configuration, formats and sources of models, BERT with fused kernels, loading and prediction."""
