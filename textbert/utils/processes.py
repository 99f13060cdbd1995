"""Several processes that work together, as torchrun starts them: which goes first, and who prints."""

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext, redirect_stdout

import torch


def is_distributed() -> bool:
    """Return True if this process is one of several that `torch.distributed` connects."""
    return torch.distributed.is_available() and torch.distributed.is_initialized()


@contextmanager
def main_process_first() -> Iterator[None]:
    """Context manager whose block the main process runs first; then the others run it, without printing.

    So work whose result is kept in a file, such as a download, is done once. If `torch.distributed` connects several
    processes, all of them must enter the block, and the others enter it also if the main process raises an error there.
    """
    distributed = is_distributed()
    is_main = not distributed or torch.distributed.get_rank() == 0
    if not is_main:
        torch.distributed.barrier()
    try:
        with nullcontext() if is_main else redirect_stdout(None):
            yield
    finally:
        if distributed and is_main:
            torch.distributed.barrier()
