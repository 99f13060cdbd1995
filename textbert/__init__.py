"""Binary text classification with BERT: the rooms behind `tools.py`.

A room imports only rooms above it in this list, and none imports `tools`:

- errors, files, display, parameters, stages, words, calibration, measures, downloads
- tsv, packed, mojibake, quoting, delimited, typed, ids, classes, headers, tables, datasets
- overlaps, splits, inspection
- wordpieces, features, workers
- archive, weights, layouts, hub, bert
- memory, batches, devices, checkpoints, vectors, graphs, training
- prediction_files, classifier
- drawing, explanation, baseline, report, export
- tutorial
"""

import sys

# pip sees to it, but not where this folder is copied beside other code
if sys.version_info < (3, 11):  # noqa: UP036
    raise ImportError(f"Python 3.11 or newer is needed, this is {sys.version_info[0]}.{sys.version_info[1]}")
