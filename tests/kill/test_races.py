"""A second command in a folder where one is at work is refused; the first one's result is what it would have been."""

import signal

import pytest

from tests.kill.nursery import STOPPED
from tests.kill.scenarios import DEMO, DOWNLOAD, EXPORT, EXTRACT, OTHER, PREDICT, SCENARIOS, TRAIN, VANILLA, Command
from tests.kill.test_kill import Case, surroundings
from tests.kill.trees import differences, tree

RACES: tuple[tuple[str, Command, str], ...] = (  # a scenario, what is started beside it, the folder that both want
    ("eval", VANILLA, "runs/vanilla"),
    ("eval", OTHER, "runs/vanilla"),
    ("eval --restart, over a run with other settings", OTHER, "runs/vanilla"),
    ("eval, of a finished run", (*VANILLA, "--restart"), "runs/vanilla"),
    ("score --name", ("score", "runs/vanilla/predictions", "--no-meteor", "--name", "x"), "runs/x"),
    ("extract", (*EXTRACT, "--seed", "3"), "st"),
    ("extract --restart, over another seed's", (*EXTRACT, "--seed", "3"), "st"),
    ("extract --export", EXPORT, "st"),
    ("predict", PREDICT, "m"),
    ("predict", ("predict", "--maps", "m", "--dataset", "scanrefer"), "m"),
    ("train-gap --resume", (*TRAIN, "--resume", "--seed", "3"), "go"),
    ("prepare", ("prepare", "raw", "--seed", "3", "--replace"), "annotations"),
    ("download", DOWNLOAD, "to"),
    ("demo", (*DEMO, "--restart"), "fast3d-demo"),
)


NAMES = [f"{name} beside {second[0]} {number}" for number, (name, second, _) in enumerate(RACES)]


@pytest.mark.parametrize("name, second, folder", RACES, ids=NAMES)
def test_of_two_commands_in_a_folder_the_second_is_refused(name, second, folder, nursery, case, tmp_path, request):
    scenario = next(one for one in SCENARIOS if one.name == name)
    one = Case(scenario, nursery, surroundings(scenario, request), tmp_path / "begin")
    locked = max(number for number, operation in enumerate(one.operations) if _locks(operation, folder))
    begun = next(number for number, operation in enumerate(one.operations) if _locks(operation, folder)) + 2
    for at, number in ((begun, signal.SIGCONT), ((begun + locked) // 2, signal.SIGKILL)):
        one.begin()
        assert one.run(scenario.command, at=at, number=signal.SIGSTOP).code == STOPPED
        before = tree(one.work)
        refused = one.run(second)
        (line,) = [line for line in refused.stderr.splitlines() if "error: " in line]
        assert refused.code == 2 and f"{folder} is in use by another fast3d command" in line
        assert not differences(before, tree(one.work))
        ended = nursery.go_on(number)
        if number == signal.SIGKILL:  # which frees the folder
            assert ended.code == -signal.SIGKILL
            ended = one.run(scenario.again or scenario.command)
        assert ended.code == 0, ended.stderr
        assert not differences(one.result, tree(one.work))


def _locks(operation: str, folder: str) -> bool:
    return operation.endswith(f"open {folder}/.fast3d.lock")
