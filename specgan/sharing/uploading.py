"""Files to a repository of the hub, all in one commit."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import specgan
from specgan.hub import first_line

_LOG_IN = "hf auth login, or set HF_TOKEN to a token that may write (huggingface.co/settings/tokens)"


class PushError(RuntimeError):
    """Nothing was uploaded, and the message says why."""


def require_login() -> None:
    """Raises PushError if there is no token to upload with. Contacts nobody."""
    from huggingface_hub import get_token

    if get_token() is None:
        raise PushError(f"you are not logged in to the hub; log in: {_LOG_IN}")


def upload(folder: Path, names: Sequence[str], *, repo: str, private: bool | None) -> str:
    """Uploads files into a repository in one commit, and creates it if there is none. Its other files stay.

    Args:
        folder: of the files.
        names: their paths in it, and in the repository, with slashes.
        repo: user/name.
        private: of a new repository: only you see it; False: everybody does; None: as the account has it.
    Returns:
        The address of the repository.
    Raises:
        PushError: not logged in, not allowed, no network, or the repository is public and `private` is true.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    api = HfApi(library_name="specgan", library_version=specgan.__version__)
    with _in_one_sentence(repo):
        address = api.create_repo(repo, private=private, exist_ok=True)
        if private and not api.repo_info(repo).private:
            raise PushError(
                f"{repo} exists and is public, and private=true: nothing was uploaded; make it private in its "
                "settings, or name another"
            )
        operations = [CommitOperationAdd(name, folder / name) for name in names]
        api.create_commit(repo, operations, commit_message=f"A generator of specgan {specgan.__version__}")
    return str(address)


@contextmanager
def _in_one_sentence(repo: str) -> Iterator[None]:
    from huggingface_hub.errors import HfHubHTTPError, HTTPError, OfflineModeIsEnabled

    reason = ""
    try:
        yield
    except PushError:
        raise
    except HfHubHTTPError as err:
        reason = _of_status(err.response.status_code, repo) or getattr(err, "server_message", "") or first_line(err)
    except OfflineModeIsEnabled:
        reason = "HF_HUB_OFFLINE is set, so the hub is not asked; unset it"
    except (HTTPError, OSError) as err:
        reason = f"the hub cannot be reached ({first_line(err)}); is there a network?"
    except (ValueError, RuntimeError) as err:  # what the hub finds wrong with the card; or of its way for large files
        reason = (str(err) or type(err).__name__) + (f" ({first_line(err.__cause__)})" if err.__cause__ else "")
    if reason:
        sentence = " ".join(reason.split())
        raise PushError(f"{repo}: nothing was uploaded: {sentence}") from None  # the hub's stack trace would hide it


def _of_status(status: int, repo: str) -> str:
    owner = repo.partition("/")[0]
    return {
        401: f"the hub does not know your token; log in again: {_LOG_IN}",
        403: f"your token may not write there; is {owner} you, or yours? Log in as who may: {_LOG_IN}",
        404: f"there is no {owner} on the hub, or you may not write there; log in as who may: {_LOG_IN}",
    }.get(status, "")
