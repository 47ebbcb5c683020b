"""Figures of each class and each recording, as tables: in words, and as a file."""

import csv
from pathlib import Path

import pandas as pd

from specgan.files import atomic_path

HEADS = (
    "class",
    "recordings",
    "length, s",
    "silence, s",
    "rate, Hz",
    "level, dB",
    "band, Hz",
    "audible, Hz",
    "channels",
)
ABOUT = (
    "Length: shortest, median, longest. The others are medians. Silence: at both ends together, more than 60 dB below "
    "the peak. Level: RMS re full scale. Band: up to where the spectrum is within 60 dB of its strongest frequency. "
    "Audible: below it are 99.9 % of the energy, as the ear weights it (A)."
)
_NOT_WRITTEN = ("shape", "source")


def class_rows(table: pd.DataFrame) -> list[list[str]]:
    """A row of text for each class, for the columns HEADS, and one of all; see `findings` for the table."""
    groups = [(label, own) for label, own in table.groupby("label")]
    if len(groups) > 1:
        groups.append(("all", table))
    return [_class_row(str(label), own) for label, own in groups]


def _class_row(label: str, own: pd.DataFrame) -> list[str]:
    silence = own["start_silence_s"] + own["end_silence_s"]
    return [
        label,
        str(len(own)),
        " / ".join(f"{value:.2f}" for value in own["duration_s"].quantile([0, 0.5, 1])),
        f"{silence.median():.2f}",
        _kinds(own["sample_rate"]),
        _median(own["rms_dbfs"]),
        _median(own["band_hz"]),
        _median(own["audible_hz"]),
        _kinds(own["n_channels"]),
    ]


def _median(values: pd.Series) -> str:
    return "-" if values.isna().all() else f"{values.median():.0f}"


def _kinds(values: pd.Series) -> str:
    """The values, the most frequent first."""
    return " ".join(map(str, values.value_counts().index))


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes the figures of each recording as CSV, whole or not at all; empty: silence has none."""
    columns = [column for column in table if column not in _NOT_WRITTEN]
    with atomic_path(path) as temporary:  # quoted, and surrogateescape: a file name may hold anything
        table.round(6).to_csv(
            temporary, columns=columns, index=False, quoting=csv.QUOTE_NONNUMERIC, errors="surrogateescape"
        )
