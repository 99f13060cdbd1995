"""Convert train.tsv and dev.tsv to features from the shell, as train.ipynb does.

    python converter.py --data-dir data/sample --model all-MiniLM-L6-v2

Writes `<data-dir>/<split>_features.pkl`, which the notebooks load instead of converting again. The exit status is 0, 2
with one line on stderr for invalid input, 1 for a failure of the machine (permissions, disk space, memory, a worker
process that was killed), or 130 after Ctrl+C.
"""

import argparse
import errno
import sys
import time
from concurrent.futures import BrokenExecutor
from io import TextIOWrapper
from pathlib import Path
from typing import NoReturn

from textbert.utils import files

# errors of the machine, not of the input
MACHINE_ERRNOS = {
    *(errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOSPC, errno.EDQUOT, errno.EFBIG),
    *(errno.ENOMEM, errno.EMFILE, errno.ENFILE, errno.EIO),
}


class OneLineParser(argparse.ArgumentParser):
    """An ArgumentParser that reports an error in one line, without the usage."""

    def error(self, message: str) -> NoReturn:
        """Exit with status 2 and the message."""
        self.exit(2, f"converter.py: {' '.join(message.split())} (see --help)\n")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """Parse `arguments`, by default the command line; exit with status 2 and one line if it is invalid."""
    parser = OneLineParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--data-dir", required=True, help="folder with train.tsv and dev.tsv, made by data_prep.ipynb")
    parser.add_argument("--model", required=True, help="name, Hugging Face id, folder or .tar.gz of the BERT")
    parser.add_argument("--split", nargs="+", choices=["train", "dev"], default=["train", "dev"], help="default: both")
    parser.add_argument("--max-seq-length", type=int, default=128, metavar="N", help="3 to 512; default: 128")
    parser.add_argument(
        "--truncation", choices=["head", "tail", "head+tail"], default="head", help="what to keep of long texts"
    )
    parser.add_argument("--output-mode", choices=["classification", "regression"], default="classification")
    parser.add_argument("--processes", type=int, metavar="N", help="default: as many as pay off")
    parser.add_argument("--cache-dir", default="cache/", help="folder of BERT archives; default: cache/")
    return parser.parse_args(arguments)


def convert(options: argparse.Namespace) -> int:
    """Convert each split; return the number of examples."""
    import tools  # its import takes seconds, so the first line is printed before it

    for split in options.split:
        files.check_file(Path(options.data_dir, f"{split}.tsv"), "data_prep.ipynb makes it")
    tokenizer = tools.load_tokenizer(options.model, options.cache_dir)
    settings = (tokenizer, options.max_seq_length, options.truncation, options.output_mode, options.processes)
    return sum(len(tools.load_or_convert_features(options.data_dir, split, *settings)) for split in options.split)


def main() -> int:
    """Run the command line; return the exit status."""
    start = time.perf_counter()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):  # file names may not be printable in its encoding
            stream.reconfigure(errors="backslashreplace")
    options = parse_arguments()
    print(f"Converting {' and '.join(options.split)} of {options.data_dir} for {options.model} ...", flush=True)
    try:
        examples = convert(options)
    except (ValueError, OSError, MemoryError, BrokenExecutor) as error:
        print(f"converter.py: {' '.join(str(error).split()) or 'out of memory'}", file=sys.stderr)
        is_machine_error = isinstance(error, MemoryError | BrokenExecutor | TimeoutError)
        return 1 if is_machine_error or getattr(error, "errno", None) in MACHINE_ERRNOS else 2
    except KeyboardInterrupt:
        print("converter.py: interrupted; existing feature files are unchanged", file=sys.stderr)
        return 130
    seconds = time.perf_counter() - start
    print(f"{examples:,} examples in {seconds:.1f} s, {examples / seconds:,.0f} a second, start-up included")
    return 0


if __name__ == "__main__":
    sys.exit(main())
