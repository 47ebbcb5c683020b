"""ONNX Runtime for browsers: the package onnxruntime-web of npm, from a folder, the cache, or npm."""

import hashlib
import os
import shutil
import subprocess
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path

from specgan.files import write_bytes

PACKAGE, VERSION = "onnxruntime-web", "1.30.0"
CODE, WASM = "ort.wasm.bundle.min.mjs", "ort-wasm-simd-threaded.wasm"  # the smallest that run without a GPU
SHA256 = {
    CODE: "11e64bd8ffe11bd1a2a2f0d6275fdfbbba7262f0b76b99b53d228a8a22ef3d90",
    WASM: "3398c10d07d229bd91b364548e130e0e51a8e5704b88c7c083ebbeb78842dee2",
}
_TIMEOUT_S = 600  # of npm
_HOW = f"""\
{PACKAGE} {VERSION} (MIT licence) is what draws sounds in a browser; a page holds 14 MB of it, packed to 5 MB. With
network and npm, it is fetched (33 MB) and kept at the first page, or beforehand by
  npm pack {PACKAGE}@{VERSION}
For a machine without network or npm, unpack that file there, and give runtime=<the folder package in it>"""


class MissingRuntimeError(FileNotFoundError):
    """The runtime is not on this machine and cannot be fetched. The message says how else to get it."""


@dataclass(frozen=True)
class Runtime:
    """The files of ONNX Runtime for browsers that a page holds.

    Args:
        code: a JavaScript module.
        wasm: what it loads.
    """

    code: bytes
    wasm: bytes


def find_runtime(folder: str | Path | None) -> Runtime:
    """Reads the runtime.

    Args:
        folder: one that holds its files, or its `dist`, or `node_modules`, of any version; None: that of the cache, to
            which npm fetches it if it is not there.
    Raises:
        MissingRuntimeError: it is not there, or cannot be fetched.
        ValueError: what npm fetched is not what was published.
    """
    if folder is not None:
        for place in (".", "dist", f"node_modules/{PACKAGE}/dist", f"{PACKAGE}/dist"):
            if all(Path(folder, place, name).is_file() for name in SHA256):
                return _read(Path(folder, place))
        raise MissingRuntimeError(f"runtime is {folder}: no {' and '.join(SHA256)} in it.\n{_HOW}")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "specgan", f"{PACKAGE}-{VERSION}")
    if not all((cache / name).is_file() and _digest((cache / name).read_bytes()) == SHA256[name] for name in SHA256):
        for name, content in _fetched().items():
            write_bytes(cache / name, content)
    return _read(cache)


def _read(folder: Path) -> Runtime:
    return Runtime((folder / CODE).read_bytes(), (folder / WASM).read_bytes())


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _fetched() -> dict[str, bytes]:
    """The files that npm fetches, from the registry that it is set to."""
    npm = shutil.which("npm")
    if npm is None:
        raise MissingRuntimeError(f"{PACKAGE} is not in the cache, and there is no npm to fetch it.\n{_HOW}")
    with tempfile.TemporaryDirectory() as folder:
        command = [npm, "pack", "--silent", "--ignore-scripts", "--pack-destination", folder, f"{PACKAGE}@{VERSION}"]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=_TIMEOUT_S, cwd=folder)
            reason = (done.stderr.strip() or f"code {done.returncode}").splitlines()[-1] if done.returncode else ""
        except (OSError, subprocess.TimeoutExpired) as err:
            reason = str(err)
        packed = next(Path(folder).glob("*.tgz"), None)
        if packed is not None and not reason:
            return _unpacked(packed)
    raise MissingRuntimeError(f"npm cannot fetch {PACKAGE} ({reason or 'it wrote nothing'}).\n{_HOW}")


def _unpacked(packed: Path) -> dict[str, bytes]:
    content = {}
    with tarfile.open(packed) as archive:
        for name, digest in SHA256.items():
            try:
                member = archive.extractfile(f"package/dist/{name}")
            except KeyError:
                member = None
            content[name] = b"" if member is None else member.read()
            if _digest(content[name]) != digest:
                raise ValueError(f"the {name} that npm fetched is not that of {PACKAGE} {VERSION}; it is not used")
    return content
