"""What a process that trains on a processor has to find in its environment when it starts.

All of it is read while a process loads its libraries, so that it cannot be made up for later. Nothing changes what is
computed, and a system that does not know a setting ignores it. The figures are of fine-tuning MiniLM on `emotion`, on
two cores of an Intel Xeon with AMX.
"""

import os
from collections.abc import Mapping

LIBRARIES = {
    # How long a thread waits awake for the next piece of work, in turns of libgomp's loop: below a millisecond. A step
    # hands out hundreds of pieces of some 50 µs, of which sleeping and waking would cost as much again: 145 texts/s
    # with threads that sleep at once, 177 with any that wait. Waiting as long as libgomp would by default brings a
    # shared machine to its knees: beside two other busy processes 37 texts/s, 42 asleep, 50 with this.
    "OMP_WAIT_POLICY": "PASSIVE",
    "GOMP_SPINCOUNT": "10000",
    # oneDNN writes code for each shape of a product and keeps the last 1,024. Batches of thirty lengths need more, and
    # it would write most of them again and again: a step takes 124 ms instead of 95.
    "ONEDNN_PRIMITIVE_CACHE_CAPACITY": "8192",
}

# The arrays of one step are as large as those of the next. glibc gives each large one back to the system, which has to
# clear all its pages anew: 4,700 page faults in a step, and 330 if it is kept and lies in huge pages, which brought
# 177 to 210 texts/s. In bytes.
MEMORY = {
    "glibc.malloc.hugetlb": 1,  # ask for huge pages, as far as the system gives them away (madvise)
    "glibc.malloc.mmap_threshold": 32 << 20,  # the most that glibc accepts
    "glibc.malloc.trim_threshold": 4 << 30,
    "glibc.malloc.top_pad": 64 << 20,
}


def training_environment(given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """`given` with what a process that trains shall find there besides; what is set already stays as it is."""
    tunables = ":".join(f"{name}={value}" for name, value in MEMORY.items())
    return LIBRARIES | {"GLIBC_TUNABLES": tunables} | dict(given)


def prepare_libraries() -> None:
    """Set what libraries read, in a process that was started otherwise. To be called before torch is imported."""
    for name, value in LIBRARIES.items():
        os.environ.setdefault(name, value)
