"""Which files of a folder are recordings."""

import logging
import os
from collections import Counter
from pathlib import Path

from specgan.audio.decoders import AudioError
from specgan.audio.kinds import HEAD_BYTES, is_sound
from specgan.audio.results import DRUMS_MARKER, results_in
from specgan.files import walk_folders

log = logging.getLogger(__name__)

# fmt: off
AUDIO_SUFFIXES = frozenset({  # of files that are recordings without a look into them
    ".aac", ".ac3", ".aif", ".aifc", ".aiff", ".amr", ".ape", ".au", ".caf", ".flac", ".m4a", ".m4b", ".mka", ".mp2",
    ".mp3", ".mp4", ".oga", ".ogg", ".opus", ".snd", ".w64", ".wav", ".wave", ".webm", ".wma", ".wv",
})
# fmt: on
_UNPACKED = "__MACOSX"  # where macOS's archives keep the attributes of files, under the names of the files
_MOST_NAMED = 8  # folders or suffixes in a message


def find_audio(root: str | Path, *, recursive: bool = True) -> list[Path]:
    """Lists the recordings under a folder, sorted by path: by suffix, or by their first bytes if that says nothing.

    Left out are hidden files and folders, and sounds that specgan wrote (see `audio.results`), unless `root` is a
    folder of nothing else. What else is left out is logged. Linked folders are followed, and each real folder is
    visited once.

    Args:
        root: a folder; or a file, which is returned alone, whatever it is.
        recursive: also look in subfolders.
    Raises:
        FileNotFoundError: `root` does not exist.
        AudioError: it holds no recording.
    """
    root = Path(root)
    if root.is_file():
        return [root]
    if not root.exists():
        raise FileNotFoundError(f"{root}: no such file or folder; check the path")
    found: list[Path] = []
    results: list[Path] = []
    others: Counter[str] = Counter()  # files that are no sound, by suffix
    noted: set[str] = set()
    for folder, names in walk_folders(root, recursive=recursive):
        if _UNPACKED in folder.relative_to(root).parts:
            continue
        noted |= results_in(folder)
        if folder != root and (str(folder) in noted or str(folder.parent) in noted):
            noted.add(str(folder))
        for name in names:
            if name == DRUMS_MARKER:
                continue
            path = os.path.join(folder, name)
            suffix = os.path.splitext(name)[1].lower()
            if suffix not in AUDIO_SUFFIXES and not _begins_as_sound(path):
                others[suffix or "no suffix"] += 1
            else:
                is_result = path in noted or str(folder) in noted
                (results if is_result else found).append(folder / name)
    if others:
        log.info("%s: left out what is not sound: %s", root, _counted(others, "files"))
    if results and not found and _is_noted_here(root, results):
        return sorted(results)
    if results:
        in_folders = Counter(str(path.parent.relative_to(root)) for path in results)
        log.warning(
            "%s: left out %s, which specgan wrote; to use sounds of one of these folders, give the folder itself",
            root,
            _counted(in_folders, "sounds"),
        )
    if not found:
        where = "in it or its subfolders" if recursive else "directly in it"
        others += Counter({"sounds that specgan wrote": len(results)})
        there = f", but {_counted(others, 'other files')}" if others else ""
        raise AudioError(f"{root}: no audio file {where}{there}; check the path")
    return sorted(found)


def _begins_as_sound(path: str) -> bool:
    """Whether the first bytes of a file are of sound. False: they are not, or it is no file that can be read."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)  # else a pipe would wait for somebody to write
    except OSError:
        return False
    try:
        return is_sound(os.read(descriptor, HEAD_BYTES))
    except OSError:
        return False
    finally:
        os.close(descriptor)


def _is_noted_here(root: Path, results: list[Path]) -> bool:
    """Whether the root is a folder of results, not merely one in which such folders are."""
    own = results_in(root)
    return all(str(path) in own or own & set(map(str, path.parents)) for path in results)


def _counted(numbers: Counter[str], what: str) -> str:
    """For example `12 files (.txt 10, .asd 2)`."""
    largest = sorted((-count, name) for name, count in numbers.items() if count)[:_MOST_NAMED]
    named = ", ".join(f"{name} {-count}" for count, name in largest)
    more = ", ..." if len(numbers) > _MOST_NAMED else ""
    total = numbers.total()
    return f"{total} {what if total != 1 else what.removesuffix('s')}" + (f" ({named}{more})" if named else "")
