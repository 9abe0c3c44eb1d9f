"""Notes for the user that are collected on the way."""


class Remarks:
    """Notes, each once; those that hold for several datasets name them all."""

    def __init__(self) -> None:
        self._datasets: dict[str, list[str]] = {}

    def add(self, text: str, dataset: str | None = None) -> None:
        """Adds a note, or another dataset that it holds for."""
        named = self._datasets.setdefault(text, [])
        if dataset is not None and dataset not in named:
            named.append(dataset)

    def lines(self) -> list[str]:
        """The notes in the order in which they were first made."""
        return [f"{', '.join(named)}: {text}" if named else text for text, named in self._datasets.items()]
