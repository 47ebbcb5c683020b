"""Files: written whole or not at all, found once each, under safe names, and read without running code in them."""

import hashlib
import json
import os
import pickle
import platform
import re
import secrets
import time
import unicodedata
from collections import defaultdict
from collections.abc import Collection, Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import ZipFile

OUTPUTS_NAME = ".specgan-outputs.jsonl"  # in a folder: the files that each command wrote there
MOST_BYTES = 200  # in a name; file systems allow 255, suffixes included

_DEVICE = re.compile(r"(con|prn|aux|nul|com\d|lpt\d) *(\.|\Z)", re.IGNORECASE)  # of Windows, with any suffix
_ZIP = b"PK\x03\x04"  # the start of a file of torch.save
_HOST = hashlib.sha256(platform.node().encode()).hexdigest()[:8]  # other machines may write into the same folder
_PROCESS = secrets.token_hex(4)  # containers of one name may have processes of one number
_WRITER = re.compile(r"\.partial-([0-9a-f]{8})-(\d+)-")  # host and process of a half-written file
_ABANDONED_S = 3600  # without a change, of a file that another machine writes
_count = count()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path` that takes its place when the block ends without an exception.

    The sibling is hidden and keeps the suffix, because many writers choose the format by it. The parent folder is
    created. If the block raises, the sibling is removed, and a file that was at `path` before stays as it was.
    """
    path = Path(path)
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{_HOST}-{os.getpid()}-{_PROCESS}{next(_count)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:  # KeyboardInterrupt included: an interrupted run leaves nothing behind
        temporary.unlink(missing_ok=True)
        raise


def write_bytes(path: str | Path, content: bytes) -> None:
    """Writes a file, whole or not at all; see `atomic_path`."""
    with atomic_path(path) as temporary:
        temporary.write_bytes(content)


def write_text(path: str | Path, text: str, *, errors: str = "strict") -> None:
    """Writes a file of UTF-8, whole or not at all.

    Args:
        path: see `atomic_path`.
        text: its content; line ends stay as they are.
        errors: "strict", or "replace" for text that may hold parts of a file name that are not UTF-8: they become "?".
    """
    write_bytes(path, text.encode(errors=errors))


def write_json(path: str | Path, content: object, *, indent: int | None = None, allow_nan: bool = True) -> None:
    """Writes a file of JSON and a line end, whole or not at all; arguments as of `json.dumps`."""
    write_text(path, json.dumps(content, indent=indent, allow_nan=allow_nan) + "\n")


def require_free(folder: str | Path, paths: Iterable[str], *, ours: Collection[str] = ()) -> None:
    """The one rule for outputs: a command replaces what its earlier runs wrote, and nothing else.

    Args:
        folder: of the outputs.
        paths: in it, that the command will write.
        ours: paths that its earlier runs wrote.
    Raises:
        ValueError: there is something else at one of the paths, or `folder` is a file.
    """
    if os.path.isfile(folder):
        raise ValueError(f"{folder}: is a file, and a folder is to be written there; give another output")
    taken = sorted(path for path in paths if path not in ours and os.path.lexists(os.path.join(folder, path)))
    if taken:
        more = f" (and {len(taken) - 1} more)" if len(taken) > 1 else ""
        raise ValueError(
            f"{Path(folder) / taken[0]}{more}: is in the way, and not known to be from an earlier run of this "
            "command, so nothing is written; move it, or give another output"
        )


class Outputs:
    """The files that a command writes into a folder, noted there in a hidden file, a line of JSON for each run.

    Tasks that keep a journal (see batch.journal) know their outputs by that.

    Args:
        folder: of the outputs; it need not exist.
        command: whose outputs they are.
    Attributes:
        known: paths in the folder that runs of the command wrote, or were about to write.
    """

    def __init__(self, folder: str | Path, command: str) -> None:
        self.folder, self.command = Path(folder), command
        self.known = {path for by, path in noted_outputs(folder) if by == command}

    def require_free(self, paths: Iterable[str]) -> None:
        """Raises ValueError for a path that is not free for the command, see the function of that name."""
        require_free(self.folder, paths, ours=self.known)

    def claim(self, paths: Iterable[str]) -> None:
        """Notes files that will be written now. Raises: as `require_free`; nothing is noted then."""
        paths = set(paths)
        self.require_free(paths)
        self.note(paths)

    def note(self, paths: Iterable[str]) -> None:
        """Notes files that are known to be the command's."""
        new = sorted(set(paths) - self.known)
        if new:
            self.folder.mkdir(parents=True, exist_ok=True)
            with (self.folder / OUTPUTS_NAME).open("a") as file:  # appended: several runs may write into a folder
                file.write(json.dumps({"command": self.command, "outputs": new}) + "\n")
            self.known.update(new)


def noted_outputs(folder: str | Path) -> Iterator[tuple[str, str]]:
    """Yields the command and the path in the folder of each file that is noted there, see `Outputs`."""
    path = Path(folder, OUTPUTS_NAME)
    for line in path.read_text(errors="replace").splitlines() if path.is_file() else ():
        try:
            note = json.loads(line)
            yield from ((note["command"], output) for output in note["outputs"] if isinstance(output, str))
        except (ValueError, TypeError, KeyError):  # the last line of a run that was killed
            continue


def load_tensors(path: str | Path, content: bytes | None = None) -> Any:
    """Reads a file of torch.save: tensors, numbers, text, and lists and dictionaries of these; on the CPU.

    Such a file can also hold a program, which a careless reader would run; here it is refused.

    Args:
        path: of the file.
        content: its bytes, if they were read already (from an object storage); `path` is then only named in messages.
    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds anything else, is damaged, or was not written by torch.save.
    """
    import torch  # here, because most users of this module do not need it

    if content is None and not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file; check the path")
    fault = "is damaged"
    with Path(path).open("rb") if content is None else BytesIO(content) as file:
        try:
            if file.read(len(_ZIP)) != _ZIP:
                fault = "was not written by torch.save, or is damaged"
            elif sum(part.file_size for part in ZipFile(file).infolist()) > file.seek(0, os.SEEK_END):
                fault = "claims to hold more than its size"  # and would take memory by it
            else:
                file.seek(0)
                return torch.load(file, map_location="cpu", weights_only=True)
        except OSError:  # the file cannot be read
            raise
        except pickle.UnpicklingError:
            fault = "holds more than tensors, numbers and text: something that could run as a program"
        except Exception:  # the readers raise many kinds for damaged bytes
            pass
    # Outside of the handler, because PyTorch's message would be shown too, which tells how to read such a file anyway.
    raise ValueError(f"{path}: {fault}; it was not read. Make it again, or fetch it again from where you trust")


def find_files(root: str | Path, suffixes: Container[str], *, recursive: bool = True) -> list[Path]:
    """Lists the files under a folder that have one of the suffixes, in upper or lower case, sorted by path.

    Args:
        root: a folder, searched as by `walk_folders`.
        suffixes: in lower case, with the dot.
        recursive: also look in subfolders.
    Raises:
        FileNotFoundError: `root` does not exist.
    """
    if not os.path.exists(root):
        raise FileNotFoundError(f"{root}: no such file or folder; check the path")
    found: list[Path] = []
    for folder, names in walk_folders(root, recursive=recursive):
        found += [folder / name for name in names if os.path.splitext(name)[1].lower() in suffixes]
    return sorted(found)


def walk_folders(
    root: str | Path, *, recursive: bool = True, avoid: str | Path | None = None
) -> Iterator[tuple[Path, list[str]]]:
    """Yields each folder from `root` down, with the sorted names of its files.

    Hidden files and folders are left out. Linked folders are followed, and each real folder is visited once, so that
    links cannot loop.

    Args:
        root: the first folder, also if it is hidden.
        recursive: also go into subfolders.
        avoid: a folder that is left out, by whatever link it is reached.
    Raises:
        OSError: a folder cannot be read.
    """
    visited = {os.path.realpath(root)}
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_raise):
        yield Path(folder), sorted(name for name in names if not name.startswith("."))
        children = sorted(name for name in subfolders if recursive and not name.startswith("."))
        subfolders.clear()  # os.walk enters those that are put back
        for name in children:
            real = os.path.realpath(os.path.join(folder, name))
            if real not in visited and not (avoid is not None and is_inside(real, avoid)):
                visited.add(real)
                subfolders.append(name)


def _raise(err: OSError) -> None:
    raise err


def is_inside(path: str | Path, folder: str | Path) -> bool:
    """Whether a path is a folder or lies in it, once links are followed."""
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def remove_files(paths: Iterable[str], folder: str | Path) -> None:
    """Removes files of a folder, given by their paths in it, and the subfolders that become empty.

    Paths that lead out of the folder, by `..` or through a linked subfolder, are left alone. Half-written files beside
    them, which a killed run left, are removed too; not those that another run is writing.
    """
    root = Path(os.path.realpath(folder))
    by_parent: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        by_parent[(root / path).parent].append(root / path)
    for parent, files in by_parent.items():
        try:
            if not parent.is_relative_to(root) or os.path.realpath(parent) != str(parent):
                continue
        except ValueError:  # no file can have this name: it holds a zero byte, or text that cannot be encoded
            continue
        half_written = parent.glob(".partial-*") if os.path.isdir(parent) else ()  # as atomic_path names them
        for file in [*files, *(file for file in half_written if not _is_being_written(file))]:
            if os.path.isfile(file) or os.path.islink(file):  # os.path, because a list may hold any text
                file.unlink(missing_ok=True)  # another run may remove the same
        while parent != root:
            try:
                parent.rmdir()
            except FileNotFoundError:
                pass  # a killed run got this far
            except OSError:
                break  # not empty
            parent = parent.parent


def _is_being_written(file: Path) -> bool:
    """Whether another run that still goes on may have named this file, see `atomic_path`."""
    writer = _WRITER.match(file.name)
    if writer is None:
        return False
    host, process = writer.groups()
    try:
        if host == _HOST and int(process) == os.getpid():
            return False
        if host == _HOST and os.name == "posix":
            os.kill(int(process), 0)  # no signal: it only asks whether there is such a process
            return True
        return time.time() - file.stat().st_mtime < _ABANDONED_S
    except PermissionError:  # it is another user's
        return True
    except (OSError, OverflowError):  # no such process, or the file is done
        return False


def safe_name(name: str) -> str:
    """Makes a label or a stem one visible path component: no separator, no leading dot or dash, nothing unprintable.

    Nor what Windows changes or takes for a device: a dot or space at the end, CON, NUL.
    A name of more than MOST_BYTES is cut and gets a digest of the whole, so that different names stay different.
    """
    safe = "".join("_" if char in '/\\:*?"<>|' or not char.isprintable() else char for char in name)
    safe = "_" + safe[1:] if safe.startswith((".", "-")) else safe or "_"
    safe = safe[:-1] + "_" if safe.endswith((".", " ")) else safe
    safe = "_" + safe if _DEVICE.match(safe) else safe
    if len(safe.encode()) > MOST_BYTES:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
        safe = safe.encode()[: MOST_BYTES - 9].decode(errors="ignore") + "-" + digest
    return safe


def unique_names(wanted: Mapping[Path, str], root: Path) -> dict[Path, str]:
    """Gives each file the name that it wants; where several want the same, the digest of the file's path follows it.

    Names that differ only in case, or in the encoding of an accent, count as the same, as on some file systems.

    Args:
        wanted: name by file, from `safe_name`.
        root: folder of all files; the digest is of the path in it, so that names stay when the folder moves.
    """
    by_name: dict[str, list[Path]] = defaultdict(list)
    for file, name in wanted.items():
        by_name[_one_name(name)].append(file)
    taken = {name for name, files in by_name.items() if len(files) == 1}
    names = {}
    for files in by_name.values():
        for file in files:
            name = wanted[file]
            if len(files) > 1:
                digest, n = hashlib.sha256(os.fsencode(file.relative_to(root))).hexdigest(), 8
                while _one_name(f"{name}-{digest[:n]}") in taken:
                    n += 1
                name = f"{name}-{digest[:n]}"
                taken.add(_one_name(name))
            names[file] = name
    return names


def composed(name: str) -> str:
    """The name in the form of Unicode that keyboards type, NFC: no accent is a character of its own, as on macOS."""
    return unicodedata.normalize("NFC", name)


def _one_name(name: str) -> str:
    """The same text for names that a file system may take for one: the canonical caseless match of Unicode, D145."""
    return unicodedata.normalize("NFD", unicodedata.normalize("NFD", name).casefold())
