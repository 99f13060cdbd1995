"""Convert train.tsv and dev.tsv to features from the shell: the featurization of train.ipynb.

    python converter.py --data-dir data/sample --model all-MiniLM-L6-v2

Writes `<data-dir>/<split>_features.pkl`, which the notebooks accept without converting again. Exit status 0, or 2 with
one line on stderr when the input is at fault, 1 when the machine is (no right, no room, no memory, a worker process
that was killed), or 130 when interrupted.
"""

import argparse
import errno
import sys
import time
from concurrent.futures import BrokenExecutor
from pathlib import Path

from textbert.utils import files

# errors of the system that say nothing of the input
OF_MACHINE = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO),
}


def parse_arguments(arguments=None):
    """Return the command line as a namespace; a mistake ends with status 2 and one line."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.error = lambda message: parser.exit(2, f"converter.py: {' '.join(message.split())} (see --help)\n")
    parser.add_argument("--data-dir", required=True, help="folder with train.tsv and dev.tsv, made by data_prep.ipynb")
    parser.add_argument("--model", required=True, help="name, hub id, folder or .tar.gz of the BERT to convert for")
    parser.add_argument("--split", nargs="+", choices=["train", "dev"], default=["train", "dev"], help="default: both")
    parser.add_argument("--max-seq-length", type=int, default=128, metavar="N", help="3 to 512; default: 128")
    parser.add_argument("--truncation", choices=["head", "tail", "head+tail"], default="head", help="what to keep")
    parser.add_argument("--output-mode", choices=["classification", "regression"], default="classification")
    parser.add_argument("--processes", type=int, metavar="N", help="default: as many as it is worth")
    parser.add_argument("--cache-dir", default="cache/", help="where BERT archives are kept; default: cache/")
    return parser.parse_args(arguments)


def convert(options):
    """Convert each split; return the number of examples."""
    import tools  # takes seconds, so not before the first line is on the screen

    for split in options.split:
        files.check_file(Path(options.data_dir, f"{split}.tsv"), "data_prep.ipynb makes it")
    tokenizer = tools.load_tokenizer(options.model, options.cache_dir)
    settings = (tokenizer, options.max_seq_length, options.truncation, options.output_mode, options.processes)
    return sum(len(tools.load_or_convert_features(options.data_dir, split, *settings)) for split in options.split)


def main():
    """Run the command line."""
    start = time.perf_counter()
    for stream in (sys.stdout, sys.stderr):
        stream.reconfigure(errors="backslashreplace")  # the name of a file need not be text
    options = parse_arguments()
    print(f"Converting {' and '.join(options.split)} of {options.data_dir} for {options.model} ...", flush=True)
    try:
        examples = convert(options)
    except (ValueError, OSError, MemoryError, BrokenExecutor) as error:
        print(f"converter.py: {' '.join(str(error).split()) or 'there is not enough memory'}", file=sys.stderr)
        of_machine = isinstance(error, MemoryError | BrokenExecutor | TimeoutError)
        return 1 if of_machine or getattr(error, "errno", None) in OF_MACHINE else 2
    except KeyboardInterrupt:
        print("converter.py: interrupted; each features file is whole, as it was or new", file=sys.stderr)
        return 130
    seconds = time.perf_counter() - start
    print(f"{examples:,} examples in {seconds:.1f} s, {examples / seconds:,.0f} a second, start-up included")
    return 0


if __name__ == "__main__":
    sys.exit(main())
