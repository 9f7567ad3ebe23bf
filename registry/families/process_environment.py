"""What a process that trains on a processor has to find in its environment when it starts.

Both settings are read while a process loads its libraries, so they cannot be made up for later. Neither changes what is
computed, and where a system knows neither of them nothing happens. Measured with `bench/train.py --texts 2500` on two
cores of an Intel Xeon with AMX, threads asleep at once (as libraries are told by OMP_WAIT_POLICY=PASSIVE) and glibc's
own ways of keeping memory: 145 texts/s; with both settings 208.
"""

import os
from collections.abc import Mapping

# How long a thread waits awake for the others' next piece of work, in turns of libgomp's loop; 10,000 are below a
# millisecond. A step of fine-tuning hands out hundreds of pieces that take some 50 µs, of which sleeping and waking
# would cost as much again. Waiting as long as libgomp would by default brings a shared machine to its knees: beside
# two other busy processes on two cores 37 texts/s, against 50 with this and 42 with threads that sleep at once.
WAITING = {"OMP_WAIT_POLICY": "PASSIVE", "GOMP_SPINCOUNT": "10000"}

# The arrays of one step are as large as those of the next. glibc gives each large one back to the system, which has to
# clear all its pages anew: 4,700 page faults in a step, and 330 if it is kept and lies in huge pages. In bytes.
KEEPING = {
    "glibc.malloc.hugetlb": 1,  # ask for huge pages, as far as the system gives them away (madvise)
    "glibc.malloc.mmap_threshold": 32 << 20,  # the most that glibc accepts
    "glibc.malloc.trim_threshold": 4 << 30,
    "glibc.malloc.top_pad": 64 << 20,
}


def training_environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`given` with what a process that trains shall find there besides; what is set already stays as it is."""
    tunables = ":".join(f"{name}={value}" for name, value in KEEPING.items())
    return WAITING | {"GLIBC_TUNABLES": tunables} | dict(given)


def wait_briefly() -> None:
    """Set how threads wait, for a process that was started otherwise. To be called before torch is imported."""
    for name, value in WAITING.items():
        os.environ.setdefault(name, value)
