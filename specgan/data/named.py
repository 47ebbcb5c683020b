"""Data sets that need more than a folder to be found."""

from functools import partial
from typing import Any

from specgan.data.datamodule import SpectrogramDataModule
from specgan.sets.hub import fetch_hub_set, list_hub_set


def hub_data(
    *,
    name: str,
    label_column: str = "label",
    audio_column: str = "audio",
    group_column: str | None = None,
    subset: str | None = None,
    revision: str | None = None,
    **settings: Any,
) -> SpectrogramDataModule:
    """Returns the data of a training on a data set of the Hugging Face hub.

    Args:
        name, label_column, audio_column, group_column, subset, revision: see `sets.hub.HubSet`.
        **settings: of SpectrogramDataModule.
    """
    columns = {"label_column": label_column, "audio_column": audio_column, "group_column": group_column}
    fetch = partial(fetch_hub_set, name=name, subset=subset, revision=revision, **columns)
    return SpectrogramDataModule(make_audio=fetch, listing=list_hub_set, **settings)
