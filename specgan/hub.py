"""Files of trained models: from a folder, from the cache of the Hugging Face hub, or downloaded from it."""

from pathlib import Path


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
    from httpx import HTTPError
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError

    # the cache first: without network, each request to the hub takes half a minute to fail
    for only_cache in (True, False):
        for name in names:
            try:
                return Path(hf_hub_download(model, name, local_files_only=only_cache))
            except (OSError, ValueError, HTTPError, EntryNotFoundError) as err:
                reason = first_line(err)
    # outside of the handler: the hub's stack trace would hide what to do
    raise MissingWeightsError(
        f"{model}: no such folder, and its {wanted} is not in the cache and cannot be fetched from huggingface.co "
        f"({reason}).\n{how}"
    )


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

    try:
        # not the cache first, because that may hold a part of the files only
        return Path(snapshot_download(model))
    except Exception as err:  # from a wrong name to a full disk
        reason = first_line(err)
    raise MissingWeightsError(
        f"{model}: no such folder, and it cannot be fetched from huggingface.co ({reason}).\n{how}"
    )


def first_line(err: Exception) -> str:
    """Returns the first line of an error's message, without a full stop."""
    return (str(err).strip() or type(err).__name__).splitlines()[0].rstrip(".")
