"""Which recordings belong together, and into which split each group of them goes."""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

from specgan.data.manifest import SPLITS, assign_splits, check_percentages

EXAMPLE = r"""recording_pattern='^(.+?)(_\d+)?$' for take, take_1 and take_2"""


def group_by_pattern(pattern: str, file: Path, folder: Path) -> str:
    """Returns the group that a file's name says: its folder's path, and what the pattern's first group matches.

    Args:
        pattern: regular expression, searched in the name without suffix.
        file: in `folder` or its subfolders.
        folder: from which the path counts.
    Raises:
        ValueError: the pattern is none, has no group, or finds nothing in the name.
    """
    try:
        match = re.search(pattern, file.stem)
        reason = None if match and match[1] else "it finds nothing there"
    except (re.error, IndexError) as err:  # no regular expression; no group
        reason = str(err)
    if reason:
        raise ValueError(
            f"recording_pattern {pattern!r} gives no recording for {file}: {reason}; it is a regular expression whose "
            f"first group names the recording, e.g. {EXAMPLE}"
        )
    return (file.relative_to(folder).parent / match[1]).as_posix()


def deal_groups(
    groups: Sequence[str],
    labels: Sequence[str],
    *,
    percentages: Sequence[float],
    seed: int,
    small_classes: str = "stop",
    own: Sequence[str] = (),
) -> list[str]:
    """Deals clips into train, val and test: whole groups, each label by the same percentages.

    Args:
        groups: of each clip; clips of a group are never in different splits.
        labels: of each clip. A group may have clips of several.
        percentages: of train, val and test; they sum to 100. 0 leaves a split empty.
        seed: another seed deals other splits.
        small_classes: of labels with fewer groups than splits, as of `assign_splits`.
        own: of each clip, the split that its data set publishes, "" if none. A split that should have clips and that
            the data set does not publish gets its share of the rest.
    Returns:
        "train", "val" or "test" for each clip.
    Raises:
        ValueError: as `assign_splits`.
    """
    check_percentages(percentages)
    if any(own):
        return _deal_rest(groups, labels, percentages, seed, small_classes, own)
    labels_of = defaultdict(set)
    for group, label in zip(groups, labels, strict=True):
        labels_of[group].add(label)
    try:
        if all(len(each) == 1 for each in labels_of.values()):
            return assign_splits(groups, labels, percentages=percentages, seed=seed, small_classes=small_classes)
        return _deal_mixed(groups, labels, percentages, seed, small_classes)
    except ValueError as err:
        if len(labels_of) == len(groups) or "too few" not in str(err):
            raise
        raise ValueError(
            f"{err}. There are {len(groups)} clips of {len(labels_of)} recordings, and clips of one recording are "
            "never in different splits. To count each clip as a recording all the same, which lets training see what "
            "it is tested on: recording_pattern='^(.+)$'"
        ) from err


def _deal_rest(
    groups: Sequence[str],
    labels: Sequence[str],
    percentages: Sequence[float],
    seed: int,
    small_classes: str,
    own: Sequence[str],
) -> list[str]:
    """As published. What is not published is taken from train, and from clips of which no split is published."""
    missing = {split for split, share in zip(SPLITS, percentages, strict=True) if share > 0} - set(own)
    shares = [
        share if split in missing or split == "train" else 0 for split, share in zip(SPLITS, percentages, strict=True)
    ]
    split_of = list(own)
    free = [place for place, split in enumerate(own) if not split or (missing and split == "train")]
    if free:
        dealt = deal_groups(
            [groups[place] for place in free],
            [labels[place] for place in free],
            percentages=[100 * share / sum(shares) for share in shares],
            seed=seed,
            small_classes=small_classes,
        )
        for place, split in zip(free, dealt, strict=True):
            split_of[place] = split
    return split_of


def _deal_mixed(
    groups: Sequence[str], labels: Sequence[str], percentages: Sequence[float], seed: int, small_classes: str
) -> list[str]:
    """Groups of several labels: the largest first, each to the split that its clips fill best.

    Source: Sechidis, Tsoumakas and Vlahavas, "On the Stratification of Multi-Label Data", 2011, for whole groups.
    """
    labels_of: dict[str, Counter[str]] = defaultdict(Counter)
    for group, label in zip(groups, labels, strict=True):
        labels_of[group][label] += 1
    share_of = {split: share / 100 for split, share in zip(SPLITS, percentages, strict=True) if share > 0}
    n_clips, n_left = Counter(labels), Counter(label for counts in labels_of.values() for label in counts)
    n_groups = Counter(n_left)
    room = {(split, label): n * share for split, share in share_of.items() for label, n in n_clips.items()}
    small = {label for label, n in n_groups.items() if n < len(share_of)} if small_classes == "train" else set()
    empty = {(split, label) for split, label in room if label not in small}

    def gain(split: str, counts: Mapping[str, int]) -> tuple[int, float, float]:
        """Labels that would be missing there otherwise; the share of labels' clips that fits, less what does not."""
        last = sum(
            (split, label) in empty and n_left[label] <= sum((each, label) in empty for each in share_of)
            for label in counts
        )
        fills = sum((2 * min(n, max(0.0, room[split, label])) - n) / n_clips[label] for label, n in counts.items())
        return last, fills, share_of[split]

    def order(group: str) -> tuple[int, bytes]:
        digest = hashlib.sha256(f"{seed}\0{group}".encode(errors="surrogateescape")).digest()
        return -labels_of[group].total(), digest

    split_of: dict[str, str] = {}
    for group in sorted(labels_of, key=order):
        counts = labels_of[group]
        is_small = not small.isdisjoint(counts)
        split = split_of[group] = "train" if is_small else max(share_of, key=partial(gain, counts=counts))
        for label, n in counts.items():
            room[split, label] -= n
            n_left[label] -= 1
            empty.discard((split, label))
    if empty:
        lacking = sorted({label for _, label in empty})
        raise ValueError(
            f"too few recordings for {len(share_of)} splits: "
            + ", ".join(f"{label!r} has clips of {n_groups[label]}" for label in lacking)
            + "; record more, make fewer splits (splits=[100,0,0]), or leave such labels out (classes=[...])"
        )
    return [split_of[group] for group in groups]
