"""A hospital's ledger: the rounds whose noisy gradient has left it, over all studies.

    KIT/gliofed/privacy-ledger.json     run to its mechanism, its answered rounds and the last one

A round is written into the ledger before its gradient leaves. Each round of a run is answered once:
two gradients of one round would be two looks at the same patients. One that is asked for again from
the same model gets the same bytes, which reveal nothing more.
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from filelock import FileLock

from gliofed.errors import PolicyError, StudyError
from gliofed.federated.noise.accounting import Mechanism, epsilon_of
from gliofed.runtime.files import write_bytes
from gliofed.settings import build

LEDGER: Final = "privacy-ledger.json"
"""Name of the file, beside the policy."""


@dataclass(frozen=True)
class Budget:
    """Epsilon at `delta` that one patient may lose over all studies."""

    epsilon: float
    delta: float


@dataclass(frozen=True)
class RunCost:
    """One run at this site. study: its name. rounds: of the whole run. answered: rounds whose
    gradient has left. last, model: the last of them, and the digest of the model it was asked with.
    """

    study: str
    rate: float
    noise: float
    rounds: int
    answered: int = 0
    last: int = -1
    model: str = ""

    @property
    def spent(self) -> Mechanism:
        """What has left."""
        return Mechanism(self.rate, self.noise, self.answered)

    @property
    def planned(self) -> Mechanism:
        """What will have left at the end of the run."""
        return Mechanism(self.rate, self.noise, self.rounds)


class Ledger:
    """The ledger in `path`. budget: None where one person runs all sites."""

    def __init__(self, path: Path, budget: Budget | None = None) -> None:
        self._path, self._budget = path, budget

    def runs(self) -> Mapping[str, RunCost]:
        """Run to its cost; empty before the first round. Raises PolicyError: it is damaged."""
        if not self._path.exists():
            return {}
        try:
            plain = json.loads(self._path.read_bytes())
            return {str(r): build(RunCost, own, str(self._path)) for r, own in plain.items()}
        except (ValueError, AttributeError, StudyError) as error:
            raise PolicyError(
                f"{self._path}: cannot be read as a ledger ({error}), so what has been spent is "
                "not known; restore it from a backup"
            ) from None

    def spent(self, delta: float) -> float:
        """Epsilon at `delta` of all that has left."""
        return epsilon_of([own.spent for own in self.runs().values()], delta)

    def require(self, run: str, cost: RunCost) -> None:
        """Raise PolicyError where the whole run would exceed the budget.

        Of the other runs, what has left counts.
        """
        if self._budget is None:
            return
        budget = self._budget
        others = tuple(own.spent for name, own in sorted(self.runs().items()) if name != run)
        total = epsilon_of((*others, cost.planned), budget.delta)
        if total > budget.epsilon:
            before = epsilon_of(others, budget.delta)
            raise PolicyError(
                f"study {cost.study!r}: with it, a patient's epsilon would be {total:.3g} at delta "
                f"{budget.delta:g}; this site's policy allows {budget.epsilon:g} over all studies "
                f"(privacy_epsilon), and {before:.3g} has been spent ({self._path}); nothing was "
                "sent. Ask the lead for a study with more noise or fewer epochs"
            )

    def check(self, run: str, cost: RunCost, number: int) -> None:
        """Raise PolicyError where a gradient of round `number` may not leave."""
        self.require(run, cost)
        own = self.runs().get(run, cost)
        if not own.last < number < cost.rounds:
            raise PolicyError(
                f"round {number}: this site has answered the rounds to {own.last} of "
                f"{cost.rounds}, and answers none twice, since a second gradient costs privacy "
                "that the study does not count; nothing was sent. Start a new run"
            )

    def spend(self, run: str, cost: RunCost, number: int, model: str) -> None:
        """Write down that round `number` is answered, which was asked with the model `model`.

        The last round from the same model is written once. Raises PolicyError as `check`.
        """
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{self._path}.lock"):
            runs = dict(self.runs())
            own = runs.get(run, cost)
            if (number, model) == (own.last, own.model):
                return
            self.check(run, cost, number)
            runs[run] = dataclasses.replace(
                own, answered=own.answered + 1, last=number, model=model
            )
            plain = {name: dataclasses.asdict(r) for name, r in runs.items()}
            write_bytes(self._path, json.dumps(plain, indent=1).encode(), private=True)
