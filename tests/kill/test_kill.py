"""Every command, killed before each of its file operations, goes on with the same command to an equal result.

`make kill` kills at all of them, which takes long; the other tests at some, of as many kinds as there are.
"""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest

from tests.kill.conftest import EVERY
from tests.kill.nursery import Ended, Nursery
from tests.kill.operations import chosen, of_each_kind
from tests.kill.scenarios import SCENARIOS, Command, Scenario
from tests.kill.trees import differences, same, timeless, tree
from tests.kill.world import demo_folder, rows

DOCUMENTED = Path(__file__).parents[2] / "docs" / "kills.md"


class Case:
    """A scenario in the work folder of a nursery: its state to begin with, and what it comes to without a kill."""

    def __init__(self, scenario: Scenario, nursery: Nursery, given: dict[str, Any], kept: Path):
        self.scenario, self.nursery, self.given = scenario, nursery, given
        self.work, self._kept = nursery.work, kept
        scenario.start(self.work)
        if scenario.needs == "demo":
            demo_folder(self.work, given.pop("written"))
        for step in scenario.before:
            if callable(step):
                step(self.work)
            else:
                self._well(self.run(step))
        shutil.copytree(self.work, kept, symlinks=True)
        self.before = self.read()
        self.begin()
        self.operations = self._well(self.run(scenario.command)).operations
        self.result = tree(self.work)
        self.after = self.read()

    def run(self, command: Command, **kill: Any) -> Ended:
        return self.nursery.run(command, self.scenario.inside, self.given, **kill)

    def begin(self) -> None:
        """Puts the state to begin with into the work folder."""
        shutil.rmtree(self.work)
        shutil.copytree(self._kept, self.work, symlinks=True)

    def read(self) -> dict[str, Any]:
        """What the reader tells now, by name; nothing where it refuses with one line."""
        if self.scenario.reader is None:
            return {}
        done = self.run(self.scenario.reader)
        if done.code:
            assert done.code in (1, 2) and sum("error: " in line for line in done.stderr.splitlines()) == 1, done.stderr
            assert "Traceback" not in done.stderr
            return {}
        return {name: timeless(row) for name, row in rows(done.stdout).items()}

    def problems(self, at: int, number: int = signal.SIGKILL, cut: bool = False) -> list[str]:
        """What is wrong after a kill before that operation and the same command again.

        Args:
            cut: of what was appended last only a part has reached the disk.
        """
        self.begin()
        killed = self.run(self.scenario.command, at=at, number=number)
        wrong = _ended_badly(killed, number) if at < len(self.operations) else []
        if cut:
            path = self.work / self.operations[at - 1].partition(" ")[2]
            os.truncate(path, max(path.stat().st_size - 7, 0))
        for name, row in self.read().items():
            if not same(row, self.before.get(name)) and not same(row, self.after.get(name)):
                wrong.append(f"a reader takes {name} for whole")
        done = self.run(self.scenario.again or self.scenario.command)
        if done.code:
            return [*wrong, f"does not continue: {done.stderr[-300:]}"]
        return wrong + differences(self.result, tree(self.work))

    @staticmethod
    def _well(done: Ended) -> Ended:
        assert done.code == 0, done.stderr
        return done


def _ended_badly(killed: Ended, number: int) -> list[str]:
    if number != signal.SIGINT:
        return (
            [] if killed.code == -number else [f"was not killed, but ended with {killed.code}: {killed.stderr[-300:]}"]
        )
    last = killed.stderr.strip().splitlines()[-1:]
    if killed.code == 130 and last and last[0].startswith("interrupted") and "Traceback" not in killed.stderr:
        return []
    return [f"ctrl-C ended with {killed.code}: {killed.stderr[-300:]}"]


def surroundings(scenario: Scenario, request: pytest.FixtureRequest) -> dict[str, Any]:
    """What the scenario needs, see `Case`."""
    if scenario.needs == "server":
        return {"url": request.getfixturevalue("server").url}
    if scenario.needs == "demo":
        return {"written": request.getfixturevalue("written")}
    return {"weights": str(request.getfixturevalue("weights"))} if scenario.needs else {}


def _where(scenario: Scenario, seen: list[str]) -> list[int]:
    if not EVERY:
        return chosen(seen, scenario.most)
    return of_each_kind(seen) if scenario.kinds else list(range(len(seen) + 1))


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda one: one.name)
def test_killed_commands_continue(scenario, nursery, case, tmp_path, request):
    if scenario.kinds and not EVERY:
        pytest.skip("takes minutes; `make kill` tries it")
    one = Case(scenario, nursery, surroundings(scenario, request), tmp_path / "begin")
    seen = one.operations
    wrong = {}
    for at in _where(scenario, seen):
        wrong[f"killed before {at}, {[*seen, 'its end'][at]}"] = one.problems(at)
        if at and seen[at - 1].startswith("open") and seen[at - 1].endswith(".jsonl"):
            wrong[f"killed before {at}, in the middle of {seen[at - 1]}"] = one.problems(at, cut=True)
    some = len(seen) // 2
    alike = not EVERY and (scenario.before or scenario.needs)  # what a signal does there is seen elsewhere, too
    for number, name in () if alike else ((signal.SIGTERM, "terminated"), (signal.SIGINT, "interrupted")):
        wrong[f"{name} before {some}, {seen[some]}"] = one.problems(some, number)
    found = {where: problems[:4] for where, problems in wrong.items() if problems}
    assert not found, f"{len(found)} of {len(wrong)} kills\n{json.dumps(found, indent=1)}"
    if EVERY:
        assert f"| {scenario.name} | {len(seen)} |" in DOCUMENTED.read_text(), f"there are {len(seen)} operations"


def test_the_documents_list_what_is_killed():
    lines = [line.split("|") for line in DOCUMENTED.read_text().splitlines() if line.startswith("| ")]
    listed = {cells[1].strip(): cells[2].strip() for cells in lines[1:]}
    total = listed.pop("all")
    assert list(listed) == [scenario.name for scenario in SCENARIOS]
    assert int(total) == sum(map(int, listed.values()))
