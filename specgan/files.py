"""Files that appear whole or not at all, under names that every system takes, and that run nothing when read."""

import hashlib
import os
import pickle
import secrets
import unicodedata
from collections import defaultdict
from collections.abc import Container, Iterable, Iterator, Mapping
from contextlib import contextmanager
from io import BytesIO
from itertools import count
from pathlib import Path
from typing import Any
from zipfile import ZipFile

MOST_BYTES = 200  # of a name: file systems take 255, with suffixes

_ZIP = b"PK\x03\x04"  # how a file of torch.save begins
_HOST = secrets.token_hex(4)  # other machines may write into the same folder
_count = count()


@contextmanager
def atomic_path(path: str | Path) -> Iterator[Path]:
    """Yields a temporary sibling of `path` that takes its place when the block ends without an exception.

    The sibling is hidden and keeps the suffix, because many writers choose the format by it. The parent folder is
    created. When the block raises, the sibling is removed and whatever stood at `path` before stays as it was.
    """
    path = Path(path)
    if not path.parent.is_dir():
        path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".partial-{_HOST}-{os.getpid()}-{next(_count)}{path.suffix}")
    try:
        yield temporary
        os.replace(temporary, path)
    except BaseException:  # KeyboardInterrupt included: an interrupted run leaves nothing behind
        temporary.unlink(missing_ok=True)
        raise


def load_tensors(path: str | Path, content: bytes | None = None) -> Any:
    """Reads a file of torch.save: tensors, numbers, text, and lists and dictionaries of these; on the CPU.

    Such a file can hold a program too, which anyone who reads it without care would run; here it is refused.

    Args:
        path: of the file.
        content: its bytes, if they were read already (from an object storage); `path` is then for messages alone.
    Raises:
        FileNotFoundError: no such file.
        ValueError: it holds anything else, is damaged, or was not written by torch.save.
    """
    import torch  # most that come here do without

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
        except OSError:  # the disk's
            raise
        except pickle.UnpicklingError:
            fault = "holds more than tensors, numbers and text: something that could run as a program"
        except Exception:  # by which the readers say that bytes are not in their place
            pass
    # Out here, because PyTorch's own message would be shown too, which tells how to read such a file all the same.
    raise ValueError(f"{path}: {fault}; it was not read. Make it again, or fetch it again from where you trust")


def find_files(root: str | Path, suffixes: Container[str], *, recursive: bool = True) -> list[Path]:
    """Lists the files under a folder that have one of the suffixes, in upper or lower case, sorted by path.

    Hidden files and folders are left out. Linked folders are followed, and each real folder is visited once, so that
    links cannot loop.

    Args:
        root: a folder.
        suffixes: in lower case, with the dot.
        recursive: also look in subfolders.
    Raises:
        FileNotFoundError: `root` does not exist.
    """
    if not os.path.exists(root):
        raise FileNotFoundError(f"{root}: no such file or folder; check the path")
    found, visited = [], {os.path.realpath(root)}
    for folder, subfolders, names in os.walk(root, followlinks=True, onerror=_raise):
        wanted = (name for name in names if os.path.splitext(name)[1].lower() in suffixes)
        found += [Path(folder, name) for name in wanted if not name.startswith(".")]
        children = sorted(name for name in subfolders if recursive and not name.startswith("."))
        subfolders.clear()  # what is put back is what os.walk enters
        for name in children:
            real = os.path.realpath(os.path.join(folder, name))
            if real not in visited:
                visited.add(real)
                subfolders.append(name)
    return sorted(found)


def _raise(err: OSError) -> None:
    raise err


def remove_files(paths: Iterable[str], folder: str | Path) -> None:
    """Removes files that really lie in a folder, given by their paths in it, and the subfolders that this empties.

    Paths that lead out of the folder, by `..` or through a linked subfolder, are left alone. What a killed run left
    half-written beside the files goes too.
    """
    root = Path(os.path.realpath(folder))
    by_parent: dict[Path, list[Path]] = defaultdict(list)
    for path in paths:
        by_parent[(root / path).parent].append(root / path)
    for parent, files in by_parent.items():
        try:
            if not parent.is_relative_to(root) or os.path.realpath(parent) != str(parent):
                continue
        except ValueError:  # nothing is called that: a zero byte, or text that no file system holds
            continue
        half_written = parent.glob(".partial-*") if os.path.isdir(parent) else ()  # as atomic_path names them
        for file in [*files, *half_written]:
            if os.path.isfile(file) or os.path.islink(file):  # os.path, because any text may stand in a list
                file.unlink()
        while parent != root:
            try:
                parent.rmdir()
            except FileNotFoundError:
                pass  # a killed run got this far
            except OSError:
                break  # not empty
            parent = parent.parent


def safe_name(name: str) -> str:
    """Makes a label or a stem one visible path component: no separator, no leading dot or dash, nothing unprintable.

    A name that leaves no room for a suffix is cut, and gets a digest of the whole, so that two stay two.
    """
    safe = "".join("_" if char in '/\\:*?"<>|' or not char.isprintable() else char for char in name)
    safe = "_" + safe[1:] if safe.startswith((".", "-")) else safe or "_"
    if len(safe.encode()) > MOST_BYTES:
        digest = hashlib.sha256(name.encode(errors="surrogatepass")).hexdigest()[:8]
        safe = safe.encode()[: MOST_BYTES - 9].decode(errors="ignore") + "-" + digest
    return safe


def unique_names(wanted: Mapping[Path, str], root: Path) -> dict[Path, str]:
    """Gives each file the name that it wants or, where several want the same, that with a digest of the file's path.

    Names that differ in case only, or in how an accent is put, count as the same: some file systems take them for one.

    Args:
        wanted: name by file, as made by `safe_name`.
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


def _one_name(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()
