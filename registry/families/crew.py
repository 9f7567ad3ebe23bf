"""The processes that train one model together, and what they must agree on. Imports torch.

Gradients are averaged by transformers' Trainer (`DistributedDataParallel`). All that depends on one process's clock or
on a person's wish is decided by the first, or the others would wait for ever in a sum that it has left.
"""

import os
import sys
from typing import Self

import torch
import torch.distributed as distributed

from registry.families.devices import cores
from registry.families.processes import Seat


class Crew:
    """This process's place among them; alone it is the first of one, and agreeing costs nothing."""

    def __init__(self, rank: int = 0, count: int = 1, group: distributed.ProcessGroup | None = None) -> None:
        self.rank, self.count = rank, count
        self._group = group

    @property
    def leads(self) -> bool:
        """Whether this is the process that reports and writes."""
        return self.rank == 0

    @classmethod
    def join(cls, seat: Seat, device: str) -> Self:
        """Meet the others. Nothing leaves this machine."""
        if seat.count == 1:
            return cls()
        os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo" if sys.platform == "linux" else "lo0")
        # What accelerate reads to find out that it is one of several.
        place = {"RANK": seat.rank, "LOCAL_RANK": seat.rank, "WORLD_SIZE": seat.count, "LOCAL_WORLD_SIZE": seat.count}
        os.environ.update({name: str(value) for name, value in place.items()})
        if device == "cuda":
            torch.cuda.set_device(seat.rank)
        else:
            os.environ["OMP_NUM_THREADS"] = str(max(1, cores() // seat.count))
            torch.set_num_threads(max(1, cores() // seat.count))
        distributed.init_process_group(
            "nccl" if device == "cuda" else "gloo",
            init_method=f"file://{seat.meeting}",
            rank=seat.rank,
            world_size=seat.count,
        )
        return cls(seat.rank, seat.count, distributed.new_group(backend="gloo"))

    def agree(self, *wishes: bool) -> tuple[bool, ...]:
        """The first process's wishes."""
        if self.count == 1:
            return wishes
        decided = torch.tensor(wishes, dtype=torch.int32)
        distributed.broadcast(decided, 0, group=self._group)
        return tuple(bool(each) for each in decided)

    def total(self, values: torch.Tensor) -> torch.Tensor:
        """The sum of everyone's `values`, which lie on the CPU and are changed in place."""
        if self.count > 1:
            distributed.all_reduce(values, group=self._group)
        return values

    def wait(self) -> None:
        """Until everyone is here."""
        if self.count > 1:
            distributed.barrier(group=self._group)
