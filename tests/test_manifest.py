"""specgan.data.manifest: the table survives the disk, and splits are fair, whole and stable."""

import csv
import random
from collections import Counter, defaultdict
from pathlib import Path

import pandas as pd
import pytest

from specgan.data.manifest import (
    COLUMNS,
    REQUIRED_COLUMNS,
    SPLITS,
    assign_splits,
    label_of,
    read_manifest,
    write_manifest,
)

PERCENTAGES = [
    (80, 10, 10),
    (100, 0, 0),
    (50, 25, 25),
    (90, 0, 10),
    (98, 1, 1),
    (34, 33, 33),
    (1, 1, 98),
    (99.9, 0.1, 0),
]


def recordings_of(counts: dict[str, int]) -> tuple[list[str], list[str]]:
    """Names and labels of one-clip recordings, label by label."""
    labels = [label for label, count in counts.items() for _ in range(count)]
    return [f"{label}/{i:04d}" for i, label in enumerate(labels)], labels


def deal(counts: dict[str, int], percentages=(80, 10, 10), seed: int = 0) -> list[str]:
    recordings, labels = recordings_of(counts)
    return assign_splits(recordings, labels, percentages=percentages, seed=seed)


def table_of(labels: list[str], **columns) -> pd.DataFrame:
    rows = [
        {
            "path": f"{i}.pt",
            "label": label,
            "split": "train",
            "recording": str(i),
            "start_s": 0.25 * i,
            "duration_s": 1.024,
            "n_frames": 64 + i,
            "first_frame": 0,
            "source": f"{i}.wav",
            "sound": "",
        }
        for i, label in enumerate(labels)
    ]
    return pd.DataFrame(rows).assign(**columns)


# The table on disk


def test_manifest_round_trip(tmp_path):
    table = table_of(["kick", "snare"])
    write_manifest(table, tmp_path)
    pd.testing.assert_frame_equal(read_manifest(tmp_path), table, check_dtype=False)
    assert read_manifest(tmp_path)["n_frames"].tolist() == [64, 65]
    assert read_manifest(tmp_path)["start_s"].tolist() == [0.0, 0.25]


def test_manifest_holds_the_documented_columns_alone_and_in_order(tmp_path):
    write_manifest(table_of(["kick"], scratch=[1.5]), tmp_path)
    columns = [name for name in COLUMNS if name != "group"]  # no recordings belong together
    with (tmp_path / "manifest.csv").open(newline="") as file:
        assert next(csv.reader(file)) == columns
    assert list(read_manifest(tmp_path).columns) == columns


def test_columns_of_times_may_be_missing(tmp_path):
    table = table_of(["kick", "snare"])[list(REQUIRED_COLUMNS)]
    write_manifest(table.assign(scratch=1), tmp_path)
    assert (tmp_path / "manifest.csv").read_text().splitlines()[0] == '"path","label","split","recording","source"'
    pd.testing.assert_frame_equal(read_manifest(tmp_path), table, check_dtype=False)


def test_a_table_of_numeric_labels_alone_stays_text(tmp_path):
    write_manifest(table_of(["007", "7"]), tmp_path)
    assert read_manifest(tmp_path)["label"].tolist() == ["007", "7"]


def test_no_manifest_says_how_to_make_one(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"manifest\.csv.*preprocess\.py"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("column", ["path", "label", "split", "recording", "source"])
def test_a_missing_column_is_named(tmp_path, column):
    table_of(["kick"]).drop(columns=column).to_csv(tmp_path / "manifest.csv", index=False)
    with pytest.raises(ValueError, match=rf"manifest\.csv.*'{column}'"):
        read_manifest(tmp_path)


def test_a_failed_write_keeps_the_old_manifest(tmp_path):
    write_manifest(table_of(["kick"]), tmp_path)
    with pytest.raises(KeyError):
        write_manifest(table_of(["snare"]).drop(columns="source"), tmp_path)
    assert read_manifest(tmp_path)["label"].tolist() == ["kick"]
    assert [path.name for path in tmp_path.iterdir()] == ["manifest.csv"]


# Labels


@pytest.mark.parametrize(
    ("source", "label_from", "separator", "label"),
    [
        ("clips/kick/01.wav", "parent", "_", "kick"),
        ("clips/kick_01_loud.wav", "prefix", "_", "kick"),
        ("clips/kick--01.wav", "prefix", "--", "kick"),
        ("clips/kick.wav", "prefix", "_", "kick"),
        ("clips/kick.01.wav", "prefix", ".", "kick"),
        ("a/../kick/01.wav", "parent", "", "kick"),
    ],
)
def test_label_of_a_file(source, label_from, separator, label):
    assert label_of(Path(source), label_from=label_from, separator=separator) == label


def test_a_file_in_the_current_folder_has_a_parent_too(tmp_path, monkeypatch):
    (tmp_path / "kick").mkdir()
    monkeypatch.chdir(tmp_path / "kick")
    assert label_of(Path("01.wav"), label_from="parent", separator="_") == "kick"


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"label_from": "suffix"}, "label_from is 'suffix'; parent .* or prefix"),
        ({"label_from": "prefix", "separator": ""}, "separator is empty"),
        ({"label_from": "prefix"}, "_01.wav: its name has no label before '_'"),
    ],
)
def test_a_label_that_cannot_be_is_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        label_of(Path("clips/_01.wav"), **{"separator": "_", **settings})


# Splits


def test_ten_recordings_by_80_10_10():
    assert Counter(deal({"kick": 10})) == {"train": 8, "val": 1, "test": 1}


@pytest.mark.parametrize("percentages", PERCENTAGES)
def test_large_classes_are_within_one_of_the_percentages(percentages):
    counts = {"a": 1000, "b": 1237, "c": 2003}
    _, labels = recordings_of(counts)
    dealt = Counter(zip(labels, deal(counts, percentages), strict=True))
    for label, n in counts.items():
        for split, percentage in zip(SPLITS, percentages, strict=True):
            assert abs(dealt[label, split] - n * percentage / 100) <= 1, (label, split)


@pytest.mark.parametrize("percentages", PERCENTAGES)
def test_every_size_gives_every_asked_split_at_least_one(percentages):
    for n in range(3, 61):
        dealt = Counter(deal({"kick": n}, percentages))
        assert sum(dealt.values()) == n
        for split, percentage in zip(SPLITS, percentages, strict=True):
            assert (dealt[split] >= 1) == (percentage > 0), (n, split)


def test_random_percentages_and_sizes_give_every_split_its_share():
    rng = random.Random(0)
    for _ in range(300):
        cuts = sorted(rng.sample(range(1, 100), 2))
        percentages = (cuts[0], cuts[1] - cuts[0], 100 - cuts[1])
        n = rng.randint(3, 60)
        dealt = Counter(deal({"kick": n}, percentages, seed=rng.randint(0, 99)))
        assert sum(dealt.values()) == n
        for split, percentage in zip(SPLITS, percentages, strict=True):
            assert dealt[split] >= 1
            # The minimum of one may cost the largest split two more than rounding does.
            assert abs(dealt[split] - n * percentage / 100) < 3, (n, percentages, dealt)


def test_every_class_is_in_every_split():
    counts = {"rare": 3, "common": 400, "usual": 20}
    _, labels = recordings_of(counts)
    dealt = set(zip(labels, deal(counts, (98, 1, 1)), strict=True))
    assert dealt == {(label, split) for label in counts for split in SPLITS}


def test_recordings_stay_whole():
    rng = random.Random(0)
    clips = [(f"take{i}", "ab"[i % 2]) for i in range(40) for _ in range(rng.randint(1, 6))]
    rng.shuffle(clips)
    recordings, labels = zip(*clips, strict=True)
    splits_of = defaultdict(set)
    for recording, split in zip(recordings, deal_clips(recordings, labels), strict=True):
        splits_of[recording].add(split)
    assert len(splits_of) == 40
    assert all(len(splits) == 1 for splits in splits_of.values())
    # Recordings are what is counted, not clips.
    assert Counter(next(iter(splits)) for splits in splits_of.values()) == {"train": 32, "val": 4, "test": 4}


def deal_clips(recordings, labels) -> list[str]:
    return assign_splits(recordings, labels, percentages=(80, 10, 10), seed=0)


def test_a_seed_deals_the_same_again_and_another_differently():
    counts = {"kick": 50, "snare": 50}
    assert deal(counts, seed=3) == deal(counts, seed=3)
    assert deal(counts, seed=3) != deal(counts, seed=4)


def test_the_order_of_the_clips_does_not_matter():
    recordings, labels = recordings_of({"kick": 30, "snare": 30})
    forward = dict(zip(recordings, deal_clips(recordings, labels), strict=True))
    backward = dict(zip(recordings[::-1], deal_clips(recordings[::-1], labels[::-1]), strict=True))
    assert forward == backward


def test_labels_are_dealt_independently():
    recordings, labels = recordings_of({"kick": 30, "snare": 30})
    together = deal_clips(recordings, labels)
    assert together[:30] == deal_clips(recordings[:30], labels[:30])


@pytest.mark.parametrize("n", [10, 57, 200])
def test_one_more_recording_moves_hardly_any_other(n):
    recordings, labels = recordings_of({"kick": n})
    before = deal_clips(recordings, labels)
    for new in range(20):
        after = deal_clips([*recordings, f"kick/new{new}"], [*labels, "kick"])[:-1]
        # The new one pushes at most one recording over each of the two borders.
        assert sum(a != b for a, b in zip(before, after, strict=True)) <= 2


def test_small_classes_are_named_with_their_counts_and_the_ways_out():
    with pytest.raises(ValueError) as info:
        deal({"clap": 2, "kick": 9, "ride": 1})
    message = str(info.value)
    assert "'clap' has 2" in message
    assert "'ride' has 1" in message
    assert "kick" not in message
    for way_out in ("min_recordings=3", "merge={clap:", "splits=[100,0,0]", "small_classes=train"):
        assert way_out in message


def test_small_classes_are_trained_on_if_the_user_says_so():
    counts = {"clap": 2, "kick": 9, "ride": 1}
    recordings, labels = recordings_of(counts)
    splits = assign_splits(recordings, labels, percentages=(80, 10, 10), seed=0, small_classes="train")
    dealt = Counter(zip(labels, splits, strict=True))
    assert dealt["clap", "train"] == 2 and dealt["ride", "train"] == 1  # all of theirs
    assert {split: dealt["kick", split] for split in SPLITS} == Counter(deal({"kick": 9}))
    with pytest.raises(ValueError, match="small_classes is 'keep'; one of stop, train"):
        assign_splits(recordings, labels, percentages=(80, 10, 10), seed=0, small_classes="keep")


def test_many_clips_of_too_few_recordings_are_too_few():
    with pytest.raises(ValueError, match="'kick' has 2"):
        deal_clips(["a"] * 10 + ["b"] * 10, ["kick"] * 20)


def test_empty_splits_need_no_recordings():
    assert deal({"kick": 1}, (100, 0, 0)) == ["train"]
    assert sorted(deal({"kick": 2}, (50, 50, 0))) == ["train", "val"]


@pytest.mark.parametrize(
    "percentages", [(80, 10, 5), (80, 10, 20), (0, 50, 50), (110, -10, 0), (80, 20), (70, 10, 10, 10), (0.8, 0.1, 0.1)]
)
def test_impossible_percentages_are_refused_with_their_value(percentages):
    with pytest.raises(ValueError, match="splits is") as info:
        deal({"kick": 20}, percentages)
    assert str(list(percentages)) in str(info.value)
