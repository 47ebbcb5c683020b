"""How many threads to compute with: as many as are faster than fewer, while other programs run."""

import logging
import os
import time

import torch

log = logging.getLogger(__name__)

_MOST = torch.get_num_threads()  # PyTorch's own choice, which the runs of a sweep in one process do not change
_ROUNDS, _BATCHES = 3, 2
_GAIN = 1.1  # what more threads must be faster by: those that are in the way of others are slower soon
_SETTINGS = ("OMP_NUM_THREADS", "MKL_NUM_THREADS")


def set_threads(n_threads: int | None) -> None:
    """Sets how many threads PyTorch computes with on the CPU.

    Threads wait for each other after every layer, so that two are slower than one where another program uses a core.

    Args:
        n_threads: None: what the environment says (OMP_NUM_THREADS); if it says nothing, each number is tried for an
            instant and the fastest is used.
    Raises:
        ValueError: `n_threads` is not a whole number of at least 1.
    """
    if n_threads is not None and not (isinstance(n_threads, int) and n_threads >= 1):
        raise ValueError(f"threads is {n_threads}; a whole number, at least 1, or null for as many as are free")
    if n_threads is None:
        n_threads = _MOST if any(os.environ.get(name) for name in _SETTINGS) else fastest_threads(_MOST)
    torch.set_num_threads(n_threads)
    if n_threads != _MOST:
        log.info("computing with %d of %d threads", n_threads, _MOST)


def fastest_threads(most: int) -> int:
    """Tries 1, 2, 4, ... and `most` threads on a convolution, and returns the number that pays."""
    candidates = sorted({*(2**i for i in range(most.bit_length()) if 2**i <= most), most})
    if len(candidates) == 1 or torch.cuda.is_available():
        return most
    before = torch.get_num_threads()
    layer, maps = torch.nn.Conv2d(32, 64, 4, stride=2, padding=1), torch.randn(64, 32, 32, 32)
    durations_s = dict.fromkeys(candidates, 0.0)
    try:
        for round_ in range(1 + _ROUNDS):
            for n_threads in candidates:
                torch.set_num_threads(n_threads)
                start_s = time.perf_counter()
                for _ in range(_BATCHES):
                    layer(maps).sum().backward()
                if round_:  # the first one warms up
                    durations_s[n_threads] += time.perf_counter() - start_s
    finally:
        torch.set_num_threads(before)
    chosen = candidates[0]
    for n_threads in candidates[1:]:
        if durations_s[n_threads] * _GAIN < durations_s[chosen]:
            chosen = n_threads
    return chosen
