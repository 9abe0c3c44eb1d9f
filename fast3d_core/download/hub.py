"""Hugging Face, through huggingface_hub: its cache, token, offline mode, mirrors and proxies are what its environment
variables say (HF_HOME, HF_TOKEN, HF_HUB_OFFLINE, HF_ENDPOINT, ...)."""

import fnmatch
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeVar

from fast3d_core.download.source import BusyError, Log, RemoteFile, UnavailableError, check_file, patiently, safe_name
from fast3d_core.errors import DataError, UsageError
from fast3d_core.text import first_line

T = TypeVar("T")


@dataclass(frozen=True)
class HubFolder:
    """Files of a repository.

    Attributes:
        repo, kind: its id, and "model" or "dataset".
        folder: the folder in it whose files these are; "" for all of it.
        keep: globs of the names under `folder` that are needed. Where weights are there as safetensors, their PyTorch
            twins are left out.
    """

    repo: str
    kind: str
    folder: str = ""
    keep: tuple[str, ...] = ("*",)

    @property
    def title(self) -> str:
        return f"Hugging Face {self.repo}" + (f" ({self.folder}/)" if self.folder else "")

    @property
    def link(self) -> str:
        """At Hugging Face itself, or at the mirror that HF_ENDPOINT names."""
        from huggingface_hub import constants

        tree = f"/tree/main/{self.folder}" if self.folder else ""
        return f"{constants.ENDPOINT}/{'datasets/' if self.kind == 'dataset' else ''}{self.repo}{tree}"

    def listing(self, revision: str | None, log: Log) -> list[RemoteFile]:
        from huggingface_hub import HfApi, constants

        if constants.HF_HUB_OFFLINE:
            return self._cached(revision)
        call = HfApi().model_info if self.kind == "model" else HfApi().dataset_info
        info = patiently(
            lambda: self._asked(lambda: call(self.repo, revision=revision, files_metadata=True, timeout=30)), log
        )
        files = []
        for entry in info.siblings or ():
            digest = f"sha256:{entry.lfs.sha256}" if entry.lfs else f"git:{entry.blob_id}" if entry.blob_id else None
            files.append(RemoteFile(entry.rfilename, f"{info.sha}:{entry.rfilename}", entry.size, digest))
        return self._needed(files)

    def fetch(self, files: Sequence[RemoteFile] | None, stage: Path, log: Log, bars: bool) -> Path:
        from huggingface_hub import constants
        from huggingface_hub.utils import disable_progress_bars, enable_progress_bars

        (enable_progress_bars if bars else disable_progress_bars)()
        folder = stage / "files"
        for file in files or ():
            path = folder / file.name
            part = stage / "parts" / (file.digest or file.name).replace("/", "_").replace(":", "-")
            if constants.HF_HUB_OFFLINE:
                _copy(Path(file.origin), part, path)
            else:
                patiently(partial(self._fetch, file, path, part), log)
            problem = check_file(path, file)
            if problem:
                path.unlink()
                raise DataError(f"{self.title}: {file.name} was fetched, but {problem}; it was deleted, run again")
        return folder

    def _fetch(self, file: RemoteFile, path: Path, part: Path) -> None:
        """One file to `path`, from the cache or from `part`, what an interrupted run left, on.

        `hf_hub_download` would throw a part away when it is interrupted (as of huggingface_hub 2), and the parts here
        have up to 10 GB; so this takes the function below it, which goes on.
        """
        from huggingface_hub import hf_hub_url, try_to_load_from_cache
        from huggingface_hub.file_download import http_get
        from huggingface_hub.utils import build_hf_headers

        if path.exists():
            return
        commit, _, name = file.origin.partition(":")
        cached = try_to_load_from_cache(self.repo, name, revision=commit, repo_type=self.kind)
        if isinstance(cached, str):
            return _copy(Path(cached), part, path)
        path.parent.mkdir(parents=True, exist_ok=True)
        part.parent.mkdir(parents=True, exist_ok=True)
        url = hf_hub_url(self.repo, name, repo_type=self.kind, revision=commit)
        with part.open("ab") as target:
            start, headers = target.tell(), build_hf_headers()
            if start != file.size:
                self._asked(lambda: http_get(url, target, resume_size=start, headers=headers))
        part.replace(path)

    def _cached(self, revision: str | None) -> list[RemoteFile]:
        """Without a network: what huggingface_hub's cache holds of it."""
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import LocalEntryNotFoundError

        try:
            patterns = [f"{self.folder}/{pattern}" if self.folder else pattern for pattern in self.keep]
            folder = snapshot_download(
                self.repo, repo_type=self.kind, revision=revision, local_files_only=True, allow_patterns=patterns
            )
        except LocalEntryNotFoundError:
            raise UnavailableError(
                f"{self.title}: offline mode is on (HF_HUB_OFFLINE) and the Hugging Face cache does not hold it"
            ) from None
        files = [path for path in Path(folder).rglob("*") if path.is_file()]
        names = [(path, path.relative_to(folder).as_posix()) for path in sorted(files)]
        return self._needed([RemoteFile(name, str(path), path.stat().st_size) for path, name in names])

    def _needed(self, files: Sequence[RemoteFile]) -> list[RemoteFile]:
        prefix = f"{self.folder}/" if self.folder else ""
        found = [
            RemoteFile(safe_name(file.name.removeprefix(prefix)), file.origin, file.size, file.digest)
            for file in files
            if file.name.startswith(prefix)
            and any(fnmatch.fnmatchcase(file.name.removeprefix(prefix), pattern) for pattern in self.keep)
        ]
        if any(file.name.endswith(".safetensors") for file in found):
            found = [file for file in found if not file.name.startswith("pytorch_model")]
        weights = any(file.name.endswith((".safetensors", ".bin")) for file in found)
        if not found or (self.kind == "model" and not weights):  # a cache may hold a part of a repository
            raise UnavailableError(f"{self.title}: what is wanted is not there")
        return found

    def _asked(self, call: Callable[[], T]) -> T:
        """What `call` to huggingface_hub returns, its errors in our words.

        Raises `UnavailableError` for what is not there or not allowed, `BusyError` for what may go better later.
        """
        from huggingface_hub import errors

        try:
            return call()
        except errors.RevisionNotFoundError:
            raise UsageError(f"{self.title}: there is no such revision") from None
        except (errors.HfHubHTTPError, errors.EntryNotFoundError) as error:
            cause = error if isinstance(error, errors.HfHubHTTPError) else error.__cause__
            if not isinstance(cause, errors.HfHubHTTPError):
                raise DataError(f"{self.title}: cannot be reached; is there a network?") from None
            raise self._refusal(cause) from None
        except errors.HFValidationError as error:
            raise UsageError(f"{self.title}: {error}") from None
        except OSError as error:
            if error.errno is not None and not isinstance(error, ConnectionError):
                raise  # the disk
            raise DataError(f"{self.title}: cut off ({first_line(error)}); run again, it goes on from there") from None
        except errors.HTTPError as error:  # no connection, a timeout
            raise DataError(f"{self.title}: cannot be reached ({first_line(error)}); run again later") from None

        except (LookupError, AttributeError, TypeError, ValueError):  # in reading a listing
            raise UnavailableError(f"{self.title}: its answer is none of Hugging Face; is HF_ENDPOINT right?") from None

    def _refusal(self, error: "OSError") -> Exception:
        from huggingface_hub import errors

        assert isinstance(error, errors.HfHubHTTPError)
        code = error.response.status_code
        if code == 429 or code >= 500:
            after = error.response.headers.get("Retry-After", "")
            return BusyError(f"{self.title}: busy (HTTP {code})", float(after) if after.isdigit() else None)
        if code in (401, 403) or isinstance(error, errors.GatedRepoError):
            return UnavailableError(
                f"{self.title}: access refused (HTTP {code}); log in with `hf auth login` or set HF_TOKEN, and accept"
                f" its terms at {self.link}"
            )
        return UnavailableError(f"{self.title}: not found (HTTP {code}); is HF_ENDPOINT right?")


def _copy(source: Path, part: Path, path: Path) -> None:
    """Copies a file to `part` and, whole, to `path`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, part)
    part.replace(path)
