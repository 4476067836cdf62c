"""Several processes that share the work, as `accelerate launch` and `torchrun` start them."""

from __future__ import annotations

import os
from dataclasses import dataclass
from datetime import timedelta
from typing import Any


@dataclass(frozen=True, slots=True)
class Processes:
    """Which of how many processes this one is.

    Attributes:
        rank: Number of this process, from 0.
        count: Number of processes.
    """

    rank: int = 0
    count: int = 1

    @classmethod
    def launched(cls) -> Processes:
        """What the launcher's environment says; a single process without one."""
        return cls(int(os.environ.get("RANK", "0")), int(os.environ.get("WORLD_SIZE", "1")))

    @property
    def first(self) -> bool:
        """Whether this process does what is done once."""
        return self.rank == 0

    def device(self) -> str | None:
        """The device of this process; None where one process may take the best there is."""
        return str(self._state().device) if self.count > 1 else None

    def wait(self) -> None:
        """Until all processes are here."""
        if self.count > 1:
            self._state().wait_for_everyone()

    def _state(self) -> Any:
        from accelerate import PartialState

        # One process may have much more to do than another.
        return PartialState(timeout=timedelta(days=7))
