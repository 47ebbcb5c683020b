"""specgan.evaluation: a judge that is trained once, and generators of known quality."""

import json
import shutil
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch

from specgan.audio import resample, save_wav, scale_to_peak
from specgan.data.datamodule import SpectrogramDataModule
from specgan.data.drums import drum
from specgan.evaluation import cross_validation, few_clips
from specgan.evaluation import judge as judge_module
from specgan.evaluation.copies import DISTANCES, Sounds, find_copies
from specgan.evaluation.evaluator import Evaluation, Evaluator
from specgan.evaluation.listening import choose_sounds
from specgan.evaluation.page import write_report
from specgan.models.classifier import Classifier
from specgan.spectrogram import Spectrogram, SpectrogramParams, normalise
from specgan.tasks.spectrograms import make_spectrograms
from specgan.vocoders.griffin_lim import GriffinLim
from specgan.vocoders.learned import Learned

NAMES = ("clap", "kick", "open_hat")
PARAMS = SpectrogramParams(hop_length=512, n_mels=32, n_frames=32)
VOCODER = partial(GriffinLim, n_iter=6, n_inversion_iter=10)
JUDGE = partial(Classifier, width=8, n_features=16, n_steps=50, learning_rate=6e-3)
UNTAUGHT = partial(JUDGE, n_steps=1)  # where its verdicts do not matter
N_SAMPLES = 12


def write_drums(root: Path, **n_of_class: int) -> Path:
    for name, n in n_of_class.items():
        for seed in range(n):
            save_wav(root / name / f"{name}_{seed}.wav", drum(name, seed=seed, sample_rate=16000), 16000)
    return root


def make_dataset(sounds: Path, folder: Path, *, splits, n_frames: int | None = None, **settings) -> Path:
    params = replace(PARAMS, n_frames=n_frames)
    make_spectrograms(sounds, folder, params=params, splits=splits, **{"peak": 0.5, "keep_sounds": 4000, **settings})
    return folder


def open_data(dataset_dir: Path, **settings) -> SpectrogramDataModule:
    data = SpectrogramDataModule(dataset_dir=str(dataset_dir), **{"params": PARAMS, **settings})
    data.setup("test")
    return data


def make_evaluation(**settings) -> Evaluation:
    settings = {
        "vocoder": VOCODER,
        "judge": JUDGE,
        "n_samples": N_SAMPLES,
        "n_neighbors": 2,
        "n_shown": 2,
        "device": "cpu",
    } | settings
    return Evaluation(**{"classifier_steps": 0, "n_folds": 0, **settings})


def prepared(data: SpectrogramDataModule, **settings) -> Evaluator:
    return make_evaluation(**settings).of(data)


def sound_of(clips, index: int) -> torch.Tensor:
    return clips.waveforms([(index, 0.0)])


def judges(folder: Path) -> set[str]:
    return {path.name for path in Path(folder).glob("judge*")}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """Fourteen drums of each of three classes."""
    return write_drums(tmp_path_factory.mktemp("sounds"), **dict.fromkeys(NAMES, 14))


@pytest.fixture(scope="module")
def specs(sounds, tmp_path_factory) -> Path:
    """A dataset of 7, 2 and 5 clips of each class, and the judge that the tests share."""
    folder = make_dataset(sounds, tmp_path_factory.mktemp("specs"), splits=[50, 14, 36])
    prepared(open_data(folder))
    return folder


@pytest.fixture
def specs_without_judge(specs, tmp_path) -> Path:
    return shutil.copytree(specs, tmp_path / "specs", ignore=shutil.ignore_patterns("judge*"))


@pytest.fixture(scope="module")
def data(specs) -> SpectrogramDataModule:
    return open_data(specs)


# --- generators of known quality


def drawn(data, names: list[str], seeds) -> torch.Tensor:
    """Spectrograms of drums that are in no split."""
    sounds = [
        drum(name, seed=1000 + seed, sample_rate=16000)[: PARAMS.n_samples]
        for name, seed in zip(names, seeds, strict=True)
    ]
    padded = torch.stack([torch.nn.functional.pad(sound, (0, PARAMS.n_samples - len(sound))) for sound in sounds])
    waveforms = torch.cat([scale_to_peak(waveform.unsqueeze(0), 0.5) for waveform in padded])
    return normalise(Spectrogram(PARAMS)(waveforms), PARAMS, data.level_range).unsqueeze(1)


def perfect(data):
    return lambda labels, seeds: drawn(data, [NAMES[label] for label in labels], seeds)


def deaf(data):
    """Good sounds, but a kick whatever is asked for."""
    return lambda labels, seeds: drawn(data, ["kick"] * len(labels), range(len(labels)))


def collapsed(data):
    """One sound a class."""
    return lambda labels, seeds: drawn(data, [NAMES[label] for label in labels], [0] * len(labels))


def parrot(data):
    """Training clips, by heart."""

    def sample(labels, seeds):
        own = [[i for i, label in enumerate(data.train.labels) if label == wanted] for wanted in range(len(NAMES))]
        clips = [own[label][seed % len(own[label])] for label, seed in zip(labels, seeds, strict=True)]
        return torch.stack([data.train[clip][0] for clip in clips])

    return sample


def noise(data):
    def sample(labels, seeds):
        generator = torch.Generator().manual_seed(seeds[0])
        return 2 * torch.rand(len(labels), 1, PARAMS.n_mels, PARAMS.n_frames, generator=generator) - 1

    return sample


def constant(value: float):
    return lambda labels, seeds: torch.full((len(labels), 1, PARAMS.n_mels, PARAMS.n_frames), value)


@pytest.fixture(scope="module")
def found(data):
    """The report and the examples of a generator, made once."""
    made = {}

    def of(make):
        if make not in made:
            made[make] = prepared(data).report(make(data))
        return made[make]

    return of


def generated(report, metric: str) -> float:
    return report["rows"]["generated"][metric]["value"]


# --- the judge


def test_the_judge_is_trained_once_for_a_data_set(specs_without_judge, monkeypatch):
    data = open_data(specs_without_judge)
    first = prepared(data, judge=UNTAUGHT)
    (name,) = judges(specs_without_judge)

    def fail(*_, **__):
        raise AssertionError("trained again")

    monkeypatch.setattr(judge_module, "fit_classifier", fail)
    second = prepared(open_data(specs_without_judge), judge=UNTAUGHT)
    assert judges(specs_without_judge) == {name}
    assert second.judge.accuracy == first.judge.accuracy
    sound = (sound_of(data.test, 0), PARAMS.sample_rate)
    assert second.judge.classify(*sound) == first.judge.classify(*sound)
    assert second.quick(perfect(data), n_samples=3) == first.quick(perfect(data), n_samples=3)
    with pytest.raises(AssertionError, match="trained again"):
        make_evaluation(judge=UNTAUGHT).of(data, retrain=True)


def test_the_judge_knows_its_accuracy_on_real_clips(data):
    accuracy = prepared(data).judge.accuracy
    assert {split: figure["n"] for split, figure in accuracy.items()} == {
        "val": 6,
        "vocoded_val": 6,
        "test": 15,
        "vocoded_test": 15,
    }
    assert accuracy["test"]["value"] > 0.8
    untaught = prepared(data, judge=UNTAUGHT).judge.accuracy
    assert untaught["test"]["value"] < accuracy["test"]["value"]


def test_the_judge_is_kept_for_its_own_settings(specs_without_judge):
    made = set()
    for settings, there in (
        ({}, {}),
        ({"judge": partial(UNTAUGHT, width=16)}, {}),
        ({"vocoder": partial(VOCODER, n_iter=1)}, {}),
        ({"seed": 1}, {}),
        ({"most_clips": 5}, {}),
        ({}, {"crop": "start"}),
        ({}, {"params": replace(PARAMS, n_frames=16)}),
    ):
        prepared(open_data(specs_without_judge, **there), **{"judge": UNTAUGHT, **settings})
        assert len(judges(specs_without_judge) - made) == 1, (settings, there)
        made = judges(specs_without_judge)
    for settings in ({"n_samples": 20}, {"n_shown": 1}, {"split": "val"}, {"n_neighbors": 5}, {"classifier_steps": 5}):
        prepared(open_data(specs_without_judge, batch_size=2, seed=5), judge=UNTAUGHT, **settings)
        assert judges(specs_without_judge) == made, settings


@pytest.mark.parametrize("change", [{"peak": 0.25}, {"splits": [40, 24, 36]}])
def test_a_data_set_that_was_made_anew_gets_a_judge_of_its_own(sounds, tmp_path, change):
    for settings in ({}, change):
        folder = make_dataset(sounds, tmp_path, **{"splits": [50, 14, 36], **settings})
        prepared(open_data(folder), judge=UNTAUGHT)
    assert len(judges(tmp_path)) == 2


def test_another_vocoder_under_the_same_path_gets_another_judge(specs, tmp_path):
    data, path = open_data(specs), tmp_path / "vocoder.safetensors"
    recipe = make_evaluation(vocoder=partial(Learned, path=str(path))).recipe
    names = []
    for content in (b"first", b"second", b"first"):
        path.write_bytes(content)
        names.append(recipe.path(data).name)
    assert names[0] == names[2] != names[1]


@pytest.mark.parametrize("is_there", [False, True])
def test_making_or_loading_the_judge_leaves_the_random_state_as_it_was(specs, specs_without_judge, is_there):
    data = open_data(specs if is_there else specs_without_judge)
    torch.manual_seed(5)
    state = torch.get_rng_state()
    prepared(data, judge=JUDGE if is_there else UNTAUGHT)
    assert torch.get_rng_state().equal(state)


def test_the_judge_depends_on_its_own_seed_alone(specs_without_judge):
    data = open_data(specs_without_judge)
    references = []
    for global_seed in (1, 2):
        torch.manual_seed(global_seed)
        evaluation = make_evaluation(judge=partial(JUDGE, n_steps=5))
        references.append(evaluation.of(data, retrain=True).judge.reference)
    assert references[0].equal(references[1])


class _Malice:
    def __reduce__(self):
        return Path.touch, (Path("touched"),)


@pytest.mark.parametrize("content", [b"", b"no judge at all", {"state_dict": {}}, _Malice()])
def test_a_file_that_is_no_judge_is_named_and_not_run(specs_without_judge, tmp_path, monkeypatch, content):
    monkeypatch.chdir(tmp_path)
    data = open_data(specs_without_judge)
    prepared(data, judge=UNTAUGHT)
    (path,) = specs_without_judge.glob("judge*")
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    with pytest.raises(ValueError, match=f"(?s){path}: not a judge .* remove it"):
        prepared(data, judge=UNTAUGHT)
    assert not (tmp_path / "touched").exists()


@pytest.mark.parametrize("makes", [JUDGE, UNTAUGHT])
def test_a_judge_that_was_not_trained_is_not_found(specs, makes):
    found = make_evaluation(judge=makes, seed=0 if makes is JUDGE else 99).find_judge(open_data(specs))
    assert (found is None) == (makes is UNTAUGHT)


# --- the judge of few clips


def test_a_judge_of_few_clips_is_trained_otherwise_and_one_of_many_as_before(specs, monkeypatch):
    """Settings that were added for few clips give judges of enough clips no other name."""
    data = open_data(specs)
    before = make_evaluation(judge=partial(JUDGE, dropout=0.2)).recipe
    now = make_evaluation(judge=partial(JUDGE, dropout=0.2, stretch=None)).recipe
    few = now.new_classifier(data)
    assert few.stretch == 0.15
    assert now.fitting(data).most_steps == 300
    assert now.path(data) != before.path(data)
    monkeypatch.setattr(few_clips, "ENOUGH", 14)  # clips of each class, in all splits
    many = now.new_classifier(data)
    assert many.stretch == 0
    assert now.fitting(data).ends_early
    assert now.path(data) == before.path(data)
    assert now.path(data) == replace(now, n_folds=3).path(data)


def test_accuracy_by_cross_validation_is_of_all_recordings_and_kept(specs_without_judge, monkeypatch):
    data = open_data(specs_without_judge)
    evaluator = prepared(data, judge=partial(JUDGE, n_steps=25), n_folds=3)
    found = evaluator.cross_validation()
    assert (found.n_folds, found.accuracy["n"]) == (3, 3 * 14)
    assert found.chance == pytest.approx(1 / 3)
    assert found.accuracy["value"] > 0.5
    monkeypatch.setattr(cross_validation, "fit_classifier", None)  # not trained again
    assert evaluator.cross_validation() == found
    report, _ = evaluator.report(perfect(data))
    assert report["judge"]["cross_validated_accuracy"] == found.accuracy
    assert report["judge"]["trusted"] == (found.accuracy["value"] >= 0.9)
    assert prepared(data, judge=partial(JUDGE, n_steps=25)).cross_validation() is None


def test_a_class_of_one_recording_is_drawn_and_judged_but_not_measured(tmp_path):
    sounds = write_drums(tmp_path / "sounds", clap=7, kick=7, open_hat=1)
    data = open_data(make_dataset(sounds, tmp_path / "specs", splits=[50, 14, 36], small_classes="train"))
    assert data.class_names == list(NAMES)
    evaluator = prepared(data, judge=UNTAUGHT, n_folds=2)
    assert evaluator.cross_validation().accuracy["n"] == 14
    report, examples = evaluator.report(perfect(data))
    assert report["unmeasured_classes"] == ["open_hat"]
    assert any("No test clip is of 'open_hat': not measured" in text for text in report["warnings"])
    assert any("Fewer than 10 test clips of each class: the distances are rough" in text for text in report["warnings"])
    assert any("The judge cannot tell the classes apart: its accuracy by 2-fold" in text for text in report["warnings"])
    assert report["per_class"]["generated"]["open_hat"]["n"] == N_SAMPLES
    assert "open_hat" not in report["per_class"]["real"]
    assert len(examples["open_hat"]["generated"]) == 2 and not examples["open_hat"]["real"]
    assert evaluator.quick(perfect(data), n_samples=3).frechet_distance > 0
    page = {**report, "checkpoint": "a.ckpt", "n_steps": 1}
    write_report(tmp_path / "report.html", page, examples=examples, sample_rate=PARAMS.sample_rate)


# --- without the recordings


@pytest.fixture(scope="module")
def moved(tmp_path_factory) -> Path:
    """A dataset folder with sounds, elsewhere than it was made; the recordings are gone."""
    root = tmp_path_factory.mktemp("moved")
    folder = make_dataset(write_drums(root / "sounds", **dict.fromkeys(NAMES, 8)), root / "a", splits=[50, 14, 36])
    prepared(open_data(folder), judge=UNTAUGHT)
    shutil.rmtree(root / "sounds")
    return folder.rename(root / "b")


def test_a_folder_with_sounds_is_measured_elsewhere_without_the_recordings(moved):
    before = judges(moved)
    data = open_data(moved)
    evaluator = prepared(data, judge=UNTAUGHT)
    assert judges(moved) == before
    report, examples = evaluator.report(perfect(data))
    assert list(report["rows"]) == list(examples["kick"]) == ["real", "vocoded", "generated"]
    assert not any("keeps no sounds" in warning for warning in report["warnings"])


@pytest.mark.parametrize("is_url", [False, True])
@pytest.mark.parametrize("has_sounds", [True, False])
def test_where_sounds_are_missing_clips_are_taken_through_the_vocoder(moved, tmp_path, is_url, has_sounds):
    ignored = shutil.ignore_patterns("judge*", *([] if has_sounds else ["sounds"]))
    folder = shutil.copytree(moved, tmp_path / "specs", ignore=ignored)
    if is_url:
        import fsspec

        url = f"memory://{tmp_path.name}-{has_sounds}"
        fsspec.filesystem("memory").put(str(folder), url, recursive=True)
    settings = {"datasets_dir": str(tmp_path)}
    data = SpectrogramDataModule(dataset_dir=url if is_url else str(folder), params=PARAMS, crop="start", **settings)
    data.setup("test")
    evaluator = prepared(data)
    assert evaluator.quick(perfect(data), n_samples=4).frechet_distance > 0
    assert evaluator.quick_real(n_samples=4)[0] >= 0
    report, examples = evaluator.report(perfect(data))
    rows = ["vocoded", "generated"]
    assert list(report["rows"]) == list(examples["kick"]) == (["real", *rows] if has_sounds else rows)
    assert set(evaluator.judge.accuracy) == {"vocoded_val", "vocoded_test"} | ({"val", "test"} if has_sounds else set())
    for row in report["rows"].values():
        assert {"frechet_distance", "conditional_accuracy", "diversity"} <= set(row)
    said = [warning for warning in report["warnings"] if "keeps no sounds of its recordings" in warning]
    assert len(said) == (0 if has_sounds else 1)
    vocoder = VOCODER(PARAMS, data.level_range)
    first = sound_of(data.train, 0) if has_sounds else vocoder(data.train[0][0].unsqueeze(0), seeds=[0])
    features = evaluator.judge.classifier.judge(first)[0]
    torch.testing.assert_close(evaluator.judge.reference[:1], features, rtol=1e-2, atol=1e-2)
    write_report(
        tmp_path / "report.html",
        {**report, "checkpoint": "a.ckpt", "n_steps": 1},
        examples=examples,
        sample_rate=PARAMS.sample_rate,
    )
    assert (tmp_path / "report.html").stat().st_size > 10_000


# --- recordings of a higher rate than the preset's


@pytest.fixture(scope="module")
def wide(tmp_path_factory) -> SpectrogramDataModule:
    """Drums at 44.1 kHz, whose spectrograms have 16 kHz."""
    root = tmp_path_factory.mktemp("wide")
    for name in NAMES:
        for seed in range(14):
            save_wav(root / "sounds" / name / f"{seed}.wav", drum(name, seed=seed, sample_rate=44100), 44100)
    return open_data(make_dataset(root / "sounds", root / "specs", splits=[50, 14, 36]))


def test_the_judge_listens_at_the_rate_of_the_recordings(wide):
    evaluator = prepared(wide)
    assert (evaluator.judge.sample_rate, evaluator.clips.sample_rate) == (44100, 44100)
    assert {name: figure["value"] for name, figure in evaluator.judge.accuracy.items()} == {
        name: pytest.approx(1, abs=0.2) for name in ("val", "vocoded_val", "test", "vocoded_test")
    }
    n_samples = round(PARAMS.n_samples * 44100 / 16000)
    recorded = evaluator.clips.waveforms(wide.test)
    resampled, vocoded = evaluator.clips.resampled(wide.test), evaluator.clips.vocoded(wide.test)
    assert recorded.shape == resampled.shape == vocoded.shape == (15, n_samples)
    hertz = torch.fft.rfftfreq(n_samples, 1 / 44100)
    energy = [torch.fft.rfft(sounds).abs().square() for sounds in (recorded, resampled, vocoded)]
    upper, lower = ([float(of[:, band].sum()) for of in energy] for band in (hertz > 8500, hertz < 7000))
    assert max(upper[1:]) < upper[0] / 1000
    assert lower[1] == pytest.approx(lower[0], rel=0.01)  # and at the same level
    assert lower[2] == pytest.approx(lower[0], rel=0.3)
    low = wide.test.waveforms([(0, 0.0)])
    assert evaluator.judge.classify(resample(low, 44100, 16000), 16000)[0][0] == wide.class_names[wide.test.labels[0]]


def test_what_the_rate_of_a_preset_costs_is_a_row_of_its_own(wide):
    report, examples = prepared(wide, split="test").report(perfect(wide))
    rows = report["rows"]
    assert list(rows) == list(examples["kick"]) == ["real", "resampled", "vocoded", "generated"]
    assert (report["sample_rate"], report["spectrogram_rate"]) == (44100, 16000)
    lost = {row: rows[row]["log_spectral_distance_db"]["value"] for row in ("resampled", "vocoded")}
    assert 2 < lost["resampled"] < lost["vocoded"]
    assert rows["resampled"]["attack_error_db"]["value"] < rows["vocoded"]["attack_error_db"]["value"]
    assert not {"log_spectral_distance_db", "attack_error_db"} & {*rows["real"], *rows["generated"]}
    (said,) = (text for text in report["warnings"] if "The preset's 16000 Hz" in text)
    assert "above 8000 Hz" in said and f"{lost['resampled']:.1f} dB" in said and f"{lost['vocoded']:.1f} dB" in said
    for row, sounds in examples["open_hat"].items():  # the upper bands of a picture are those that a row lacks
        top = sounds[0].spectrogram[..., -4:, 2:8].amax()  # not at the edge, where a sound that is cut has a click
        assert (top > -0.8) == (row == "real"), (row, top)


# --- sounds for listeners


def test_sounds_to_rate_are_real_clips_the_same_through_the_vocoder_and_new_ones(data):
    evaluator = prepared(data)
    sounds = evaluator.sounds_to_rate(perfect(data))
    assert list(sounds) == list(NAMES)
    vocoder = VOCODER(PARAMS, data.level_range)
    for label, rows in enumerate(sounds.values()):
        assert list(rows) == ["real", "vocoded", "generated"]
        assert {len(waveforms) for waveforms in rows.values()} == {2}
        own = (data.test.labels == label).nonzero()[:, 0].tolist()
        chosen = [i for wave in rows["real"] for i in own if torch.equal(sound_of(data.test, i)[0], wave)]
        assert len(set(chosen)) == 2
        torch.testing.assert_close(rows["vocoded"], vocoder(data.test.__getitems__(chosen)[0], seeds=[0, 1]))
        torch.testing.assert_close(rows["generated"], vocoder(perfect(data)([label] * 2, [0, 1]), seeds=[0, 1]))
    choose = partial(choose_sounds, perfect(data), evaluator.clips, split="test", n_each=2)
    others = [choose(seed=seed) for seed in (1, 2, 3)]
    assert not all(torch.equal(each["clap"]["real"], sounds["clap"]["real"]) for each in others)


def test_sounds_to_rate_have_the_rate_of_the_recordings(wide):
    clips = make_evaluation().recipe.clips(wide, torch.device("cpu"))
    rows = choose_sounds(perfect(wide), clips, split="val", n_each=1, seed=0)["kick"]
    assert list(rows) == ["real", "vocoded", "generated"]
    assert {waveforms.shape for waveforms in rows.values()} == {(1, clips.n_samples)}


def test_nothing_to_show_is_nothing_to_rate(data):
    with pytest.raises(ValueError, match="n_shown is 0"):
        make_evaluation(n_shown=0, listening=True)


# --- the report


def test_every_row_has_every_figure_with_its_interval(found):
    report, _ = found(perfect)
    names = {
        *("conditional_accuracy", "silent_share", "clipped_share", *DISTANCES),
        *("frechet_distance", "kernel_distance", "inception_score", "precision", "recall", "density", "coverage"),
        "diversity",
    }
    losses = {"log_spectral_distance_db", "attack_error_db"}  # against the recording, which generated sounds have not
    assert {row: set(figures) for row, figures in report["rows"].items()} == {
        "real": names,
        "vocoded": (names | losses) - set(DISTANCES),
        "generated": names,
    }
    figures = [figure for row in report["rows"].values() for figure in row.values()]
    figures += [figure for row in report["per_class"].values() for figure in row.values()]
    figures += [figure for name, figure in report["judge"].items() if name not in ("trusted", "chance")]
    for figure in figures:
        assert set(figure) == {"value", "low", "high", "n"}
        assert figure["low"] <= figure["value"] <= figure["high"], figure
    assert report["rows"]["real"]["conditional_accuracy"]["n"] == 15
    assert report["rows"]["generated"]["conditional_accuracy"]["n"] == 3 * N_SAMPLES
    assert {row["frechet_distance"]["n"] for row in report["rows"].values()} == {15}  # all cut to the smallest
    assert report["class_names"] == list(NAMES)
    assert (report["split"], report["seed"]) == ("test", 0)
    json.dumps(report, allow_nan=False)


def test_confusions_and_classes_count_every_sound(found):
    report, _ = found(deaf)
    assert [sum(row) for row in report["confusion"]["generated"]] == [N_SAMPLES] * 3
    assert [sum(row) for row in report["confusion"]["real"]] == [5, 5, 5]
    assert [row[1] for row in report["confusion"]["generated"]] == pytest.approx([N_SAMPLES] * 3, abs=2)  # kicks
    for row, matrix in report["confusion"].items():
        shares = [matrix[i][i] / sum(matrix[i]) for i in range(3)]
        assert [report["per_class"][row][name]["value"] for name in NAMES] == pytest.approx(shares)
        all_right = sum(matrix[i][i] for i in range(3)) / sum(map(sum, matrix))
        assert report["rows"][row]["conditional_accuracy"]["value"] == pytest.approx(all_right)


def test_a_perfect_generator_is_found_good_and_noise_bad(found):
    good, bad = found(perfect)[0], found(noise)[0]
    assert good["judge"]["trusted"]
    assert generated(good, "conditional_accuracy") > 0.8
    real = good["rows"]["real"]["frechet_distance"]["value"]
    assert generated(good, "frechet_distance") < 3 * real < generated(bad, "frechet_distance") / 3
    assert generated(good, "kernel_distance") < generated(bad, "kernel_distance") / 3
    assert generated(bad, "conditional_accuracy") < 0.6
    for metric in ("precision", "density", "coverage"):
        assert generated(good, metric) > generated(bad, metric) + 0.3
    assert generated(good, "inception_score") > generated(bad, "inception_score") + 0.1
    assert generated(good, "diversity") == pytest.approx(1, abs=0.35)
    assert good["rows"]["real"]["diversity"]["value"] == 1
    assert generated(good, "near_copy_share") < 0.3


def test_a_generator_that_ignores_the_label_is_found_out(found):
    report, _ = found(deaf)
    assert generated(report, "conditional_accuracy") == pytest.approx(1 / 3, abs=0.1)
    assert generated(report, "recall") < generated(found(perfect)[0], "recall")
    assert generated(report, "inception_score") < generated(found(perfect)[0], "inception_score") - 0.1


def test_a_generator_with_one_sound_a_class_is_found_out(found):
    report, _ = found(collapsed)
    assert generated(report, "diversity") < 0.3
    assert any("collapses" in text for text in report["warnings"])
    assert not any("collapses" in text for text in found(perfect)[0]["warnings"])


def test_a_generator_that_learned_clips_by_heart_is_found_out(found, data):
    report, examples = found(parrot)
    assert generated(report, "near_copy_share") > 0.85
    assert any("nearly copies" in text for text in report["warnings"])
    assert not any("nearly copies" in text for text in found(perfect)[0]["warnings"])
    for label, name in enumerate(NAMES):
        own = [i for i, wanted in enumerate(data.train.labels) if wanted == label]
        for seed, example in enumerate(examples[name]["generated"]):
            assert example.nearest[0].waveform.equal(sound_of(data.train, own[seed])[0])
            assert name in example.nearest[0].caption
            torch.testing.assert_close(example.nearest[0].spectrogram, example.spectrogram, rtol=0, atol=0.2)


def test_a_copy_is_found_by_what_it_was_changed_in():
    """Moved in time only the second distance finds it; a changed spectrogram with the same features only the judge."""
    generator = torch.Generator().manual_seed(0)

    def sounds(n):
        return Sounds(*(2 * torch.rand(n, *size, generator=generator) - 1 for size in ((1, 32, 40), (16,))))

    train, real, new = sounds(30), sounds(40), sounds(50)
    moved = torch.nn.functional.pad(train.spectrograms, (3, 0), value=-1.0)[..., :40]
    for copies, found_by in (
        (Sounds(train.spectrograms, new.features), ["near_copy_share", "near_copy_share_shifted"]),
        (Sounds(moved, new.features), ["near_copy_share_shifted"]),
        (Sounds(new.spectrograms, train.features), ["near_copy_share_judge"]),
        (new, []),
    ):
        found = find_copies(copies, real, train)
        assert found.found_by == found_by
        assert all(found.generated[name]["value"] == 1 for name in found_by)
        assert all(found.originals[name][:30].equal(torch.arange(30)) for name in found_by)
        assert {figure["value"] for figure in found.real.values()} == {0.05}


def test_what_the_vocoder_costs_does_not_hide_copies(tmp_path):
    """Where real clips are dense, a copy through the vocoder may be further from its clip than real ones are."""
    sounds = write_drums(tmp_path / "sounds", **dict.fromkeys(NAMES, 36))
    data = open_data(make_dataset(sounds, tmp_path / "specs", splits=[60, 10, 30]))
    evaluation = prepared(data, judge=UNTAUGHT)
    assert generated(evaluation.report(parrot(data))[0], "near_copy_share") > 0.85
    assert generated(evaluation.report(perfect(data))[0], "near_copy_share") < 0.2


def test_few_training_clips_are_measured_by_all_and_copied_alone(specs, data, found):
    """Distances compare with those of a training on all clips; a copy is one of a clip that was trained on."""
    few = open_data(specs, max_clips_per_class=2)
    evaluator = prepared(few)
    assert evaluator.judge.name == prepared(data).judge.name
    report, examples = evaluator.report(parrot(few))
    for name, figure in found(perfect)[0]["rows"]["real"].items():
        if name not in DISTANCES:
            assert report["rows"]["real"][name] == figure
    assert generated(report, "near_copy_share") > 0.85
    own = [sound_of(few.train, index)[0] for index in range(len(few.train))]
    assert all(any(e.nearest[0].waveform.equal(sound) for sound in own) for e in examples["kick"]["generated"])


@pytest.mark.parametrize(
    ("value", "metric", "text"),
    [(-1.0, "silent_share", "tenth of the generated sounds are silent"), (1.0, "clipped_share", "exceed full scale")],
)
def test_sounds_that_nobody_wants_are_warned_of(data, found, value, metric, text):
    report, _ = prepared(data).report(constant(value))
    assert generated(report, metric) == 1
    assert any(text in warning for warning in report["warnings"])
    assert generated(found(perfect)[0], metric) < 0.3
    assert not any(text in warning for warning in found(perfect)[0]["warnings"])
    json.dumps(report, allow_nan=False)


def test_examples_are_the_sounds_that_were_measured(found, data):
    _, examples = found(perfect)
    assert list(examples) == list(NAMES)
    for label, name in enumerate(NAMES):
        assert {kind: len(shown) for kind, shown in examples[name].items()} == {
            "real": 2,
            "vocoded": 2,
            "generated": 2,
        }
        first = data.test.labels.tolist().index(label)
        real, vocoded = examples[name]["real"][0], examples[name]["vocoded"][0]
        assert real.waveform.equal(sound_of(data.test, first)[0])
        torch.testing.assert_close(real.spectrogram, data.test[first][0], rtol=0, atol=0.3)
        assert (vocoded.spectrogram - real.spectrogram).abs().mean() < 0.2
        expected = VOCODER(PARAMS, data.level_range)(perfect(data)([label], [1]), seeds=[1])[0]
        second = examples[name]["generated"][1]
        assert second.caption.startswith("seed 1")
        torch.testing.assert_close(second.waveform, expected, rtol=0, atol=1e-3)
        assert second.spectrogram.equal(perfect(data)([label], [1])[0])


def test_examples_say_what_they_were_heard_as(found):
    _, examples = found(deaf)
    assert all("classified as kick" in example.caption for example in examples["clap"]["generated"])
    assert not any("classified as" in example.caption for example in examples["kick"]["generated"])


def test_a_seed_gives_the_same_report_whatever_the_global_state(data, found):
    torch.manual_seed(77)
    state = torch.get_rng_state()
    evaluation = prepared(data)
    assert evaluation.report(perfect(data))[0] == found(perfect)[0]
    torch.manual_seed(77)
    evaluation.report(perfect(data))
    assert torch.get_rng_state().equal(state)


def test_another_seed_draws_other_sounds(data):
    asked = []

    def sample(labels, seeds):
        asked.append((list(labels), list(seeds)))
        return perfect(data)(labels, seeds)

    evaluation = prepared(data, seed=7, n_samples=6, judge=UNTAUGHT)
    evaluation.report(sample)
    assert asked == [([0] * 6 + [1] * 6 + [2] * 6, [*range(7, 13)] * 3)]


def test_a_judge_that_knows_nothing_is_not_trusted(data):
    report, _ = prepared(data, judge=UNTAUGHT).report(perfect(data))
    assert report["judge"]["test_accuracy"]["value"] < 0.9
    assert report["judge"]["trusted"] is False


def test_classifiers_learn_from_generated_and_from_real_sounds(data):
    def confused(labels, seeds):
        return perfect(data)([(label + 1) % 3 for label in labels], seeds)

    scores = {}
    for name, sample in (("right", perfect(data)), ("wrong", confused)):
        rows = prepared(data, classifier_steps=40).report(sample)[0]["rows"]
        scores[name] = rows["generated"]["classification_accuracy_score"]
        assert rows["real"]["classification_accuracy_score"]["value"] > 0.7
        assert "classification_accuracy_score" not in rows["vocoded"]
    assert scores["right"]["value"] > 0.7
    assert scores["wrong"]["value"] < 0.3
    assert scores["right"]["n"] == 15


# --- which clips


def test_an_empty_split_is_named_with_the_ways_out(sounds, tmp_path):
    data = open_data(make_dataset(sounds, tmp_path, splits=[80, 20, 0]))
    with pytest.raises(ValueError, match=r"the test split of .* is empty.*evaluation\.split=val"):
        prepared(data, judge=UNTAUGHT).report(perfect(data))
    report, examples = prepared(data, judge=UNTAUGHT, split="val").report(perfect(data))
    assert report["split"] == "val"
    assert report["rows"]["real"]["conditional_accuracy"]["n"] == len(data.val)
    assert report["judge"]["trusted"] == (report["judge"]["val_accuracy"]["value"] >= 0.9)
    assert examples["kick"]["real"][0].caption.startswith("val clip")


@pytest.mark.parametrize(("n_of_class", "n_neighbors"), [(1, 5), (2, 5), (1, 1), (1, 2)])
def test_a_few_real_clips_are_enough_for_a_report(sounds, tmp_path, n_of_class, n_neighbors):
    """However few: figures that so few cannot give are left out, and none is NaN, which JSON does not know."""
    n_train = 12 - n_of_class
    splits = [100 * n / 14 for n in (n_train, 14 - n_train - n_of_class, n_of_class)]
    data = open_data(make_dataset(sounds, tmp_path, splits=splits))
    assert len(data.test) == 3 * n_of_class
    report, _ = prepared(data, n_neighbors=n_neighbors, judge=UNTAUGHT).report(perfect(data))
    assert report["rows"]["real"]["conditional_accuracy"]["n"] == 3 * n_of_class
    assert any("rough" in text or "too few" in text for text in report["warnings"])
    json.dumps(report, allow_nan=False)


def test_longer_clips_are_cut_as_training_cuts_them(sounds, tmp_path):
    """Several times, anywhere, with crop=random, once at their beginning with crop=start."""
    for i in range(6):
        long = torch.cat([drum("kick", seed=10 * i + k, sample_rate=16000) for k in range(8)])
        save_wav(tmp_path / "sounds" / "kicks" / f"{i}.wav", long, 16000)
        save_wav(tmp_path / "sounds" / "hat" / f"{i}.wav", drum("open_hat", seed=i, sample_rate=16000)[:8000], 16000)
    folder = make_dataset(tmp_path / "sounds", tmp_path / "specs", splits=[50, 17, 33])
    data = open_data(folder, crop="random")
    lengths = [-(-n // PARAMS.n_frames) for n in data.train.n_frames_of.tolist()]
    assert max(lengths) > 2
    judge = prepared(data, judge=UNTAUGHT).judge
    assert len(judge.reference) == sum(lengths)
    kicks = judge.reference[judge.reference_labels == data.class_names.index("kicks")]
    assert torch.pdist(kicks).min() > 1e-4  # each another piece

    data = open_data(folder, crop="start")
    judge = prepared(data, judge=UNTAUGHT).judge
    assert len(judge.reference) == len(data.train) == 6
    start = data.train.waveforms([(i, 0.0) for i in range(6)])
    torch.testing.assert_close(judge.classifier.judge(start)[0], judge.reference, rtol=1e-3, atol=1e-4)


def test_most_clips_are_used_at_most(data):
    evaluation = prepared(data, most_clips=10, judge=UNTAUGHT)
    assert len(evaluation.judge.reference) == len(evaluation.judge.reference_labels) == 10
    report, _ = evaluation.report(perfect(data))
    assert report["rows"]["real"]["conditional_accuracy"]["n"] == 10


# --- while training


def test_quick_figures_tell_good_from_bad(data):
    evaluation = prepared(data)
    good, bad = (evaluation.quick(make(data), n_samples=6) for make in (perfect, noise))
    assert good.frechet_distance < bad.frechet_distance / 3
    assert good.conditional_accuracy > 0.8
    one_class = evaluation.quick(deaf(data), n_samples=6)
    assert one_class.conditional_accuracy == pytest.approx(1 / 3, abs=0.1)
    assert [sum(row) for row in one_class.confusion] == [6, 6, 6]
    assert sum(row[1] for row in one_class.confusion) >= 16  # kicks


def test_quick_figures_draw_each_class_as_often_as_it_is_trained_on(tmp_path):
    sounds = write_drums(tmp_path / "sounds", clap=3, kick=16, open_hat=5)
    data = open_data(make_dataset(sounds, tmp_path / "specs", splits=[80, 20, 0], min_recordings=1))
    in_train = torch.bincount(data.train.labels)
    asked = []

    def sample(labels, seeds):
        asked.extend(zip(labels, seeds, strict=True))
        return perfect(data)(labels, seeds)

    prepared(data, judge=UNTAUGHT, seed=3).quick(sample, n_samples=10)
    counts = torch.bincount(torch.tensor([label for label, _ in asked]))
    torch.testing.assert_close(counts / counts.sum(), in_train / in_train.sum(), rtol=0, atol=0.03)
    assert abs(len(asked) - 30) <= 2
    assert len(set(asked)) == len(asked)  # no sound twice
    assert min(seed for _, seed in asked) == 3


# --- a second opinion


class Ear:
    """A stand-in for MuQ: how loud a sound is, and how bright."""

    sample_rate = 8000

    def embed(self, waveforms):
        assert all(waveform.shape == (PARAMS.n_samples // 2,) for waveform in waveforms)  # from 16 kHz
        sounds = torch.stack(list(waveforms))
        return torch.stack([sounds.square().mean(dim=1).sqrt(), sounds.diff(dim=1).abs().mean(dim=1)], dim=1).float()


def test_muq_adds_a_distance_on_features_of_its_own(data):
    reports = [prepared(data, features="muq", muq=Ear).report(make(data))[0] for make in (perfect, noise)]
    for report in reports:
        for row in report["rows"].values():
            figure = row["muq_frechet_distance"]
            assert figure["low"] <= figure["value"] <= figure["high"]
    assert generated(reports[0], "muq_frechet_distance") < generated(reports[1], "muq_frechet_distance") / 3


def test_muq_is_not_made_unless_it_is_asked_for(data):
    def fail():
        raise AssertionError("5 GB of weights")

    rows = prepared(data, muq=fail).report(perfect(data))[0]["rows"]
    assert not any("muq_frechet_distance" in row for row in rows.values())


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"n_samples": 4, "n_neighbors": 4}, "n_samples is 4; more than n_neighbors=4"),
        ({"features": "clap"}, "features is 'clap'; judge or muq"),
        ({"split": "train"}, "split is 'train'; test or val"),
        ({"most_clips": 0}, "most_clips is 0; at least 1"),
        ({"most_vocoded": 0}, "most_vocoded is 0; at least 1"),
    ],
)
def test_impossible_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        make_evaluation(**settings)
