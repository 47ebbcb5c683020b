"""Files of trained models: from a folder, from the cache of the Hugging Face hub, or downloaded from it."""

import logging
from collections.abc import Sequence
from pathlib import Path
from urllib.parse import urlsplit


class MissingWeightsError(FileNotFoundError):
    """The weights of a model are not on this machine and cannot be fetched.

    The message gives their name, size, licence, and how to fetch them.
    """


def fetch_file(model: str, *names: str, how: str) -> Path:
    """Finds the first of these files that a model has: in its folder, in the hub's cache, or on the hub.

    Args:
        model: name on the hub, or a folder.
        names: of the file; several where models differ in it.
        how: to get the model, which ends the error's message.
    Raises:
        MissingWeightsError: none of them can be found or fetched.
    """
    wanted = " or ".join(names)
    if Path(model).is_dir():
        for name in names:
            if (path := Path(model, name)).is_file():
                return path
        raise MissingWeightsError(f"{model}: no {wanted} in this folder.\n{how}")
    found = _cached_or_fetched(model, names)
    if isinstance(found, Path):
        return found
    raise MissingWeightsError(f"{model}: no such folder, and its {wanted} {_NOT_HERE.format(_host(), found)}\n{how}")


def fetch_from_hub(repo: str, name: str, *, revision: str | None = None, how: str) -> Path:
    """Finds a file of a repository in the hub's cache, or downloads it; a folder of that name does not count.

    Args:
        repo: on the hub, "user/name".
        name: of the file.
        revision: a branch, a tag or a commit; None: the main branch.
        how: to get it, which ends the error's message.
    Returns:
        Its path in the cache; the folder that it is in has the name of the commit.
    Raises:
        ImportError: huggingface_hub is not installed.
        MissingWeightsError: it can neither be found nor fetched.
    """
    require_hub(f"hf://{repo}")
    found = _cached_or_fetched(repo, [name], revision)
    if isinstance(found, Path):
        return found
    raise MissingWeightsError(f"hf://{repo}: its {name} {_NOT_HERE.format(_host(), found)}\n{how}")


def require_hub(what: str) -> None:
    """Raises ImportError, with how to install it, if `what` needs huggingface_hub and it is missing."""
    try:
        import huggingface_hub  # noqa: F401
    except ImportError as err:
        raise ImportError(f"{what} needs one more package ({err}): pip install 'specgan[hub]'") from err
    _hide_requests()


def _hide_requests() -> None:
    """Keeps each single HTTP request out of the messages of the scripts."""
    for name in ("httpx", "httpx2"):  # which versions of huggingface_hub use
        logging.getLogger(name).setLevel(logging.WARNING)


_NOT_HERE = "is not in the cache and cannot be fetched from {} ({})."


def _cached_or_fetched(repo: str, names: Sequence[str], revision: str | None = None) -> Path | str:
    """The path of the first of the files that there is; or why there is none."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HTTPError  # that of the HTTP library which it uses

    _hide_requests()
    reason = ""
    # the cache first: without network, each request to the hub takes half a minute to fail
    for only_cache in (True, False):
        for name in names:
            try:
                return Path(hf_hub_download(repo, name, revision=revision, local_files_only=only_cache))
            except (OSError, ValueError, HTTPError, EntryNotFoundError) as err:
                reason = _reason(err)
    return reason  # not raised here: the hub's stack trace would hide what to do


def _reason(err: Exception) -> str:
    from huggingface_hub.errors import RemoteEntryNotFoundError, RepositoryNotFoundError, RevisionNotFoundError

    if isinstance(err, RepositoryNotFoundError):
        return "there is no such repository, or it is private and you are not logged in: hf auth login"
    if isinstance(err, RevisionNotFoundError):
        return "it has no such revision"
    return "it has no such file" if isinstance(err, RemoteEntryNotFoundError) else first_line(err)


def _host() -> str:
    """Of the hub; another than huggingface.co is set with HF_ENDPOINT."""
    from huggingface_hub import constants

    return urlsplit(constants.ENDPOINT).netloc


def fetch_folder(model: str, *, how: str) -> Path:
    """Returns the folder with all files of a model, and downloads those that the hub's cache lacks.

    Args:
        model: name on the hub, or a folder.
        how: to get the model, which ends the error's message.
    Raises:
        MissingWeightsError: it cannot be fetched.
    """
    if Path(model).is_dir():
        return Path(model)
    from huggingface_hub import snapshot_download

    _hide_requests()
    try:
        # not the cache first, because that may hold a part of the files only
        return Path(snapshot_download(model))
    except Exception as err:  # from a wrong name to a full disk
        reason = first_line(err)
    raise MissingWeightsError(f"{model}: no such folder, and it cannot be fetched from {_host()} ({reason}).\n{how}")


def first_line(err: BaseException) -> str:
    """Returns the first line of an error's message, without a full stop."""
    return (str(err).strip() or type(err).__name__).splitlines()[0].rstrip(".")
