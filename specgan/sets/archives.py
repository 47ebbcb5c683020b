"""Archives of published data sets: found where they were unpacked, or fetched and unpacked."""

import logging
import os
import shutil
import tarfile
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from specgan.hub import first_line

log = logging.getLogger(__name__)

_PARTIAL = ".partial-fetch"  # in the folder of a data set: what a run is fetching and unpacking


class MissingSetError(FileNotFoundError):
    """A data set is not on this machine and cannot be fetched.

    The message gives its size, its address, its licence, and how else to get it.
    """


@dataclass(frozen=True)
class Archive:
    """A file to fetch.

    Args:
        url: of a .tar.gz or a .zip.
        size: about, for people.
        folder: that it is unpacked to, in the folder of the data set.
        marker: a path in it that is there once it is unpacked.
        sha256: of the file, hex digits; "": not published.
    """

    url: str
    size: str
    folder: str
    marker: str
    sha256: str = ""


def find_marker(root: str | Path, marker: str) -> Path | None:
    """Returns the first folder that has a path: `root`, a folder in it, or one in these; None: none has it."""
    root = Path(root)
    for pattern in ("", "*/", "*/*/"):
        for found in sorted(root.glob(f"{pattern}{marker}")):
            return found.parents[len(Path(marker).parts) - 1]
    return None


def fetch(name: str, archives: Sequence[Archive], folder: str | Path, *, licence: str) -> None:
    """Fetches those archives that are not unpacked in a folder yet. A killed run leaves nothing that counts.

    Args:
        name: of the data set, for messages.
        archives: of the data set.
        folder: where it is, or is to be.
        licence: of the data set, which is logged when something is fetched.
    Raises:
        MissingSetError: one of them cannot be fetched.
        ValueError: the folder holds something else.
    """
    folder = Path(folder)
    missing = [archive for archive in archives if find_marker(folder, archive.marker) is None]
    if not missing:
        return
    foreign = [each for each in folder.glob("*") if not any(each.name == archive.folder for archive in archives)]
    if len(missing) == len(archives) and foreign:
        raise ValueError(
            f"{folder}: holds something, but no {name}: there is no {missing[0].marker} in it; give its folder, or one "
            "that is empty, to which it is fetched: data.audio_dir=<folder>"
        )
    for archive in missing:
        log.info("%s: fetching %s (%s) to %s; licence: %s", name, archive.url, archive.size, folder, licence)
        reason = _fetch(archive, folder)
        if reason is not None:  # outside of the handler: its stack trace would hide what to do
            raise MissingSetError(
                f"{name} is not in {folder}, and cannot be fetched ({reason}). It would be {archive.size} from "
                f"{archive.url}, licence: {licence}. Fetch it on another machine, unpack it, and give the folder: "
                "data.audio_dir=<folder>"
            )


def _fetch(archive: Archive, folder: Path) -> str | None:
    """Fetches and unpacks; returns why that was not possible."""
    from torch.hub import download_url_to_file

    partial = folder / _PARTIAL
    shutil.rmtree(partial, ignore_errors=True)  # of a killed run
    partial.mkdir(parents=True)
    packed = partial / archive.url.rpartition("/")[2]
    try:
        download_url_to_file(archive.url, str(packed), hash_prefix=archive.sha256 or None)
        unpacked = partial / "unpacked"
        if zipfile.is_zipfile(packed):
            with zipfile.ZipFile(packed) as zipped:
                zipped.extractall(unpacked)
        else:
            with tarfile.open(packed) as tarred:
                tarred.extractall(unpacked, filter="data")
        if find_marker(unpacked, archive.marker) is None:
            return f"{archive.url} has no {archive.marker}"
        os.replace(unpacked, folder / archive.folder)
    except (OSError, RuntimeError, tarfile.TarError, zipfile.BadZipFile) as err:  # RuntimeError: another digest
        return first_line(err)
    finally:
        shutil.rmtree(partial, ignore_errors=True)
        if not any(folder.iterdir()):
            folder.rmdir()
    return None


def require_marker(root: str | Path, marker: str, name: str) -> Path:
    """As `find_marker`. Raises FileNotFoundError if no folder has it."""
    found = find_marker(root, marker)
    if found is None:
        raise FileNotFoundError(f"{root}: there is no {marker} in it, so it is no {name}; check data.audio_dir")
    return found
