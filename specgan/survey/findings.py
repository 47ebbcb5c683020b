"""What a musician should know about a folder of recordings before training on them: sentences with numbers."""

import logging
from collections.abc import Iterator, Sequence

import numpy as np
import pandas as pd

N_SPLITS = 3  # train, val and test: a class needs a recording for each
FEW = 20  # recordings of a class, with which little can be learned

_MOST_NAMED = 6
_UNEQUAL = 10  # times as many recordings in one class as in another
_CLIPPED_SHARE = 1e-3  # of the samples
_MUCH_SILENCE = 0.5  # of a recording
_CANCELLED_DB = -20.0  # of the channels' mean
_STEREO_DB = -0.1  # of the channels' mean: what differs between them has 2 % of the power
_STEREO_SHARE = 0.5  # of the recordings, from which it is said
_CUT_BELOW = 0.8  # of half the sample rate
_ONE_KIND = 0.8  # of the recordings of a class, so that the class is said to be so
_NEAR_COPY = 0.003  # between the shapes of copies at another level, of unit length

log = logging.getLogger(__name__)


def findings(table: pd.DataFrame) -> list[str]:
    """Returns what is striking about recordings, the gravest first.

    Args:
        table: a row for each recording: path, label, and the fields of `Measures`.
    """
    return [
        sentence
        for look in (_silence, _counts, _copies, _formats, _bands, _faults, _stereo)
        for sentence in look(table)
    ]


def silent(table: pd.DataFrame) -> pd.Series:
    """Which recordings are digital silence."""
    return table["peak_dbfs"].isna()


def _silence(table: pd.DataFrame) -> Iterator[str]:
    quiet = table[silent(table)]
    for label, own in quiet.groupby("label"):
        if len(own) == (table["label"] == label).sum():
            yield f"Every recording of {label} is silent; check them, or leave the class out."
    if len(quiet):
        yield f"{_are(quiet, table)} digital silence: {_named(quiet['path'])}."
    much = table[
        ~silent(table) & (table["start_silence_s"] + table["end_silence_s"] > _MUCH_SILENCE * table["duration_s"])
    ]
    if len(much):
        seconds = (much["start_silence_s"] + much["end_silence_s"]).median()
        yield (
            f"{_have(much, table)} more silence (60 dB below the peak) at the ends than sound, {seconds:.2f} s in the "
            f"median: {_named(much['path'])}; cut it off, else the network learns silence."
        )
    late = table[~silent(table) & (table["start_silence_s"] > 0.1)]
    if len(late) > 0.05 * len(table):
        yield (
            f"{_have(late, table)} more than 0.1 s of silence before the sound; with data.crop=start that silence is "
            "what is learned."
        )


def _counts(table: pd.DataFrame) -> Iterator[str]:
    counts = table["label"].value_counts().sort_index()
    if len(counts) == 1:
        yield (
            f"All recordings are of one class, {counts.index[0]}. Classes are folders in the folder, or, with "
            "label_from=prefix, what the names of files begin with."
        )
    if len(few := counts[counts < N_SPLITS]):
        yield (
            f"Too few recordings to be in train, val and test: {_listed(few)}. min_recordings={N_SPLITS} leaves such "
            "classes out, merge joins them with others, small_classes=train trains on them without measuring them."
        )
    if len(small := counts[(counts >= N_SPLITS) & (counts < FEW)]):
        yield f"Fewer than {FEW} recordings: {_listed(small)}. Little can be learned of them; more would help most."
    least, most = counts.idxmin(), counts.idxmax()
    if counts[most] >= _UNEQUAL * counts[least] and counts[least] >= N_SPLITS:
        times = counts[most] / counts[least]
        yield (
            f"{most} has {times:.0f} times the recordings of {least} ({counts[most]} and {counts[least]}); training "
            "takes each recording equally often, so rare classes are learned worst; data.balance=1 takes each class so."
        )


def _copies(table: pd.DataFrame) -> Iterator[str]:
    heard = table[~silent(table)]
    exact = [group for _, group in heard.groupby("digest") if len(group) > 1]
    yield from _about_copies(exact, "the same sound, sample by sample")
    first = heard.drop_duplicates("digest")
    yield from _about_copies(near_copies(first), "the same sound at another level or in another format")


def _about_copies(groups: Sequence[pd.DataFrame], what: str) -> Iterator[str]:
    if not groups:
        return
    n = sum(len(group) for group in groups)
    mixed = [group for group in groups if group["label"].nunique() > 1]
    ordered = sorted(groups, key=lambda group: group["label"].nunique() == 1)
    names = "; ".join(" = ".join(group["path"].head(3)) for group in ordered[:3])
    across = f", {len(mixed)} of them across classes" if mixed else ""
    kinds = "1 group" if len(groups) == 1 else f"{len(groups)} groups"
    yield (
        f"{n} recordings are copies ({what}) in {kinds}{across}: {names}. Copies in several splits make "
        "measurements look better; keep one of each."
    )


def near_copies(table: pd.DataFrame) -> list[pd.DataFrame]:
    """Groups recordings that differ in their level alone: same course of loudness, same spectrum."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components
    from scipy.spatial import cKDTree

    if len(table) < 2:
        return []
    pairs = cKDTree(np.stack(table["shape"].to_numpy())).query_pairs(_NEAR_COPY, output_type="ndarray")
    graph = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(len(table), len(table)))
    _, group_of = connected_components(graph, directed=False)
    return [group for _, group in table.groupby(group_of) if len(group) > 1]


def _formats(table: pd.DataFrame) -> Iterator[str]:
    rates = table["sample_rate"].value_counts()
    main = _main_of(table, "sample_rate")
    if main.nunique() > 1:
        places = ", ".join(f"{rate} Hz: {_named(main.index[main == rate])}" for rate in sorted(main.unique()))
        yield (
            f"Classes have different sample rates ({places}). What is missing above half the lower rate tells such "
            "classes apart, and so the network and the judge may learn the rate instead of the sound."
        )
    elif len(rates) > 1:
        listed = ", ".join(f"{rate} Hz {count}" for rate, count in rates.sort_index().items())
        yield f"Recordings have different sample rates: {listed}. All are resampled to the preset's."


def _main_of(table: pd.DataFrame, column: str) -> pd.Series:
    """The value that most recordings of a class have, by class; classes without such a one are left out."""
    shares = table.groupby("label")[column].value_counts(normalize=True)
    shares = shares[shares >= _ONE_KIND].reset_index(level=column)
    return shares[column]


def _bands(table: pd.DataFrame) -> Iterator[str]:
    """Recordings whose band was cut far below what their sample rate could hold, above all those of whole classes."""
    cut = table["cut_hz"].where(table["cut_hz"] < _CUT_BELOW * table["sample_rate"] / 2)
    low = table.assign(cut=cut).dropna(subset="cut")
    if len(low):
        yield (
            f"{_have(low, table)} a spectrum that stops at once well below half the sample rate (filtered, compressed, "
            f"or resampled from a lower rate), in the median at {low['cut'].median():.0f} Hz: {_named(low['path'])}."
        )
    ends = table["cut_hz"].fillna(np.inf)
    cut_share = np.isfinite(ends).groupby(table["label"]).mean()
    median = ends.groupby(table["label"]).median()
    reach = table.groupby("label")["band_hz"].median()
    for label in cut_share.index[cut_share >= _ONE_KIND]:
        higher = reach.index[reach > 1.5 * median[label]]
        if len(higher) and _main_of(table, "sample_rate").nunique() <= 1:
            yield (
                f"All or nearly all recordings of {label} stop at about {median[label]:.0f} Hz, while {_named(higher)} "
                f"reach {reach[higher].max():.0f} Hz: the network and the judge may learn that instead of the sound."
            )


def _faults(table: pd.DataFrame) -> Iterator[str]:
    clipped = table[table["clipped_share"] > _CLIPPED_SHARE]
    if len(clipped):
        worst = clipped.loc[clipped["clipped_share"].idxmax()]
        yield (
            f"{_are(clipped, table)} clipped (over {100 * _CLIPPED_SHARE:g} % of the samples in runs at full scale), "
            f"most of all {worst['path']} with {100 * worst['clipped_share']:.1f} %."
        )
    cancelled = table[table["downmix_db"] < _CANCELLED_DB]
    if len(cancelled):
        yield (
            f"{_have(cancelled, table)} channels that cancel each other when they are mixed to one: "
            f"{_named(cancelled['path'])}; downmix=max_energy takes the loudest channel."
        )


def _stereo(table: pd.DataFrame) -> Iterator[str]:
    stereo = table[(table["n_channels"] == 2) & table["downmix_db"].between(_CANCELLED_DB, _STEREO_DB)]
    if len(stereo) >= _STEREO_SHARE * len(table):
        yield (
            f"{_are(stereo, table)} stereo, with channels that differ. They are mixed to one; data.channels=2 trains "
            "on both, and draws stereo."
        )


# The words of sentences


def _have(some: pd.DataFrame, table: pd.DataFrame) -> str:
    return f"{len(some)} of {len(table)} recordings {'has' if len(some) == 1 else 'have'}"


def _are(some: pd.DataFrame, table: pd.DataFrame) -> str:
    return f"{len(some)} of {len(table)} recordings {'is' if len(some) == 1 else 'are'}"


def _named(names: Sequence[str] | pd.Series | pd.Index) -> str:
    names = list(map(str, names))
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more


def _listed(counts: pd.Series) -> str:
    return _named([f"{label} ({count})" for label, count in counts.items()])
