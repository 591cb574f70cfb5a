"""Data sets that are downloaded once: found on disk, or downloaded whole, or reported missing in one line."""

from __future__ import annotations

import http.client
import logging
import os
import queue
import shutil
import sys
import tarfile
import tempfile
import threading
import urllib.error
import urllib.request
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlsplit

from rich.console import Console
from rich.progress import wrap_file
from torchvision.datasets.utils import check_integrity, extract_archive

from datamodules.base import KernelDataModule
from kl.errors import DataNotFoundError

log = logging.getLogger(__name__)

CONNECT_SECONDS = 8.0
READ_SECONDS = 30.0


class DownloadError(Exception):
    """The file could not be downloaded from any address; the message has the reason of each."""


class DownloadedDataModule(KernelDataModule, ABC):
    """A data module with files in `data_dir`. A subclass defines `places`, `found_in`, `fetch` and `load`."""

    @abstractmethod
    def places(self) -> list[Path]:
        """The paths where the set is looked for, best first."""

    @abstractmethod
    def found_in(self) -> Path | None:
        """The first of `places` that holds the whole set, or None."""

    @abstractmethod
    def fetch(self) -> None:
        """Download what is missing; raise DownloadError if that fails."""

    def prepare_data(self) -> None:
        """Download the set unless it is on disk (Lightning calls this on one process only)."""
        if self.found_in() is None:
            if not self.download:
                raise self.not_found("was not downloaded (download is off)")
            self.fetch_or_explain()

    def fetch_or_explain(self) -> None:
        """Call `fetch`; a failure is raised as DataNotFoundError."""
        try:
            self.fetch()
        except DownloadError as error:
            # The chain of urllib's tracebacks says nothing that the message does not.
            raise self.not_found(f"could not be downloaded ({error})") from None

    def require(self) -> Path:
        """The path of `found_in`; raises DataNotFoundError if the set is missing."""
        place = self.found_in()
        if place is None:
            raise self.not_found("was not downloaded (prepare_data does that)")
        return place

    def not_found(self, reason: str) -> DataNotFoundError:
        """The error for a missing set: its name, where it was looked for, and what to do."""
        looked = " or ".join(str(place.absolute()) for place in self.places())
        return DataNotFoundError(
            f"{self.name} was not found at {looked} and {reason}: point --data-dir (data_dir) or KL_DATA_DIR "
            f"at a folder that holds it, or run `kl data download {self.name}` with a network"
        )


def download(urls: Sequence[str], md5: str, folder: Path) -> None:
    """Download one archive, check it, unpack it, and move its files into `folder`.

    The work is done in a temporary folder inside `folder`, so an interrupted or damaged download leaves no
    files. If no address answers, nothing is created.

    Args:
        urls: addresses of the same archive, tried in turn: .gz of one file, .tar.gz, or .zip.
        md5: checksum of the archive.
        folder: where the unpacked files go; created if it is missing.

    Raises:
        DownloadError: the archive could not be downloaded from any address.
    """
    reasons = []
    for url in urls:
        try:
            with _open(url) as response:
                folder.mkdir(parents=True, exist_ok=True)
                with tempfile.TemporaryDirectory(dir=folder, prefix=".download-") as staging:
                    archive, out = Path(staging, PurePosixPath(urlsplit(url).path).name), Path(staging, "out")
                    log.info("downloading %s to %s", url, folder)
                    _save(response, archive)
                    if not check_integrity(archive, md5):
                        raise OSError("the file came damaged (wrong checksum)")
                    out.mkdir()
                    extract_archive(archive, out)
                    for file in sorted(path for path in out.rglob("*") if path.is_file()):
                        os.replace(file, folder / file.name)
            return
        except (OSError, EOFError, http.client.HTTPException, tarfile.TarError) as error:
            reasons.append(f"{urlsplit(url).netloc or url}: {_reason(error)}")
    raise DownloadError("; ".join(reasons))


def _open(url: str) -> Any:
    """urlopen with a time limit on the whole call, because its own excludes name look-up and is per IP address."""
    answer: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def connect() -> None:
        try:
            answer.put(urllib.request.urlopen(url, timeout=READ_SECONDS))
        except Exception as error:
            answer.put(error)

    threading.Thread(target=connect, daemon=True).start()
    try:
        response = answer.get(timeout=CONNECT_SECONDS)
    except queue.Empty:
        raise OSError(f"no answer within {CONNECT_SECONDS:.0f} s") from None
    if isinstance(response, Exception):
        raise response
    return response


def _save(response: Any, path: Path) -> None:
    """Write the response to `path`, with a progress bar in a terminal."""
    size, hidden = int(response.headers.get("Content-Length", 0)), not sys.stderr.isatty()
    bar = wrap_file(response, size, description=path.name, console=Console(stderr=True), disable=hidden)
    with bar as body, path.open("wb") as file:
        shutil.copyfileobj(body, file)


def _reason(error: Exception) -> str:
    cause = error.reason if isinstance(error, urllib.error.URLError) else error
    if isinstance(cause, OSError) and cause.strerror:
        return str(cause.strerror)
    return str(cause) or type(cause).__name__
