"""A `Progress` that keeps all it receives."""


class RecordedProgress:
    def __init__(self) -> None:
        self.stages: list[str] = []
        self.updates: list[tuple[float, float, str]] = []
        self.notes: list[str] = []

    def stage(self, text: str) -> None:
        self.stages.append(text)

    def update(self, done: float, total: float, detail: str) -> None:
        self.updates.append((done, total, detail))

    def note(self, text: str) -> None:
        self.notes.append(text)

    @property
    def counts(self) -> list[tuple[float, float]]:
        return [(done, total) for done, total, _ in self.updates]
