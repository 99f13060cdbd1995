"""Binary text classification with BERT: the rooms behind `tools.py`.

A room imports only rooms above it in this list, and none imports `tools`:

- files, display, parameters, stages, words, measures, downloads
- tsv, packed, delimited, typed, tables, datasets
- overlaps, splits, inspection
- wordpieces, features, workers
- archive, weights, layouts, hub, bert
- memory, batches, devices, checkpoints, vectors, graphs, training
- classifier
- drawing, explanation, baseline, report, export
- tutorial
"""
