"""specgan.captions.muq: the whole path, with a tiny random model in the published one's layout, and its sentences."""

import json
import logging
import pickle
import random
from collections import Counter

import numpy as np
import pytest
import torch

from specgan.captions.caption import SILENCE
from specgan.captions.muq import (
    UNKNOWN,
    MuQCaptioner,
    default_cache_dir,
    describe,
    load_mulan,
    score,
    split_clips,
)
from specgan.captions.vocabulary import GROUPS, words
from specgan.hub import MissingWeightsError

RATE = 24_000
CLIP = 10 * RATE
W2V2 = {
    "hidden_act": "swish",
    "hidden_dropout": 0.1,
    "activation_dropout": 0.1,
    "attention_dropout": 0.1,
    "conformer_conv_dropout": 0.1,
    "feat_extract_activation": "gelu",
    "intermediate_size": 32,
    "num_attention_heads": 2,
    "conv_depthwise_kernel_size": 3,
    "num_conv_pos_embeddings": 4,
    "num_conv_pos_embedding_groups": 2,
    "layer_norm_eps": 1e-5,
    "layerdrop": 0.0,
    "max_source_positions": 5000,
    "position_embeddings_type": "rotary",
    "rotary_embedding_base": 10000,
}


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A folder like a download of MuQ-MuLan-large, with what its config names in subfolders of these names."""
    pytest.importorskip("muq")
    from muq import MuQ, MuQMuLan
    from muq.muq.muq import MuQConfig
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast, XLMRobertaConfig, XLMRobertaModel

    folder = tmp_path_factory.mktemp("model")
    audio, text = folder / "OpenMuQ/MuQ-large-msd-iter", folder / "xlm-roberta-base"
    with torch.random.fork_rng():
        torch.manual_seed(0)
        muq = MuQ(
            MuQConfig(
                codebook_size=16,
                conv_dim=4,
                encoder_dim=16,
                encoder_depth=2,
                stat={"melspec_2048_mean": 6.8, "melspec_2048_std": 18.4},
                w2v2_config=W2V2,
            )
        )
        muq.save_pretrained(audio)
        sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
        vocabulary = {token: n for n, token in enumerate(["<s>", "<pad>", "</s>", "<unk>"])}
        vocabulary |= {chr(n): len(vocabulary) + n - 32 for n in range(32, 127)}
        XLMRobertaModel(XLMRobertaConfig(vocab_size=len(vocabulary), **sizes)).save_pretrained(text)
        tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
        tokenizer.pre_tokenizer = pre_tokenizers.Split("", "isolated")
        special = {"bos_token": "<s>", "pad_token": "<pad>", "eos_token": "</s>", "unk_token": "<unk>"}
        PreTrainedTokenizerFast(tokenizer_object=tokenizer, **special).save_pretrained(text)
        config = {
            "mulan": {"sr": RATE, "clip_secs": 10, "dim_latent": 24},
            "audio_model": {"name": str(audio), "model_dim": 16, "use_layer_idx": -1},
            "text_model": {"name": str(text), "model_dim": None, "use_layer_idx": -1},
            "audio_transformer": {"dim": 16, "tf_depth": 0, "heads": 2, "dim_head": 8},
            "text_transformer": {"dim": 16, "tf_depth": 2, "heads": 2, "dim_head": 8, "max_seq_len": 64},
        }
        mulan = MuQMuLan(config)
    torch.save(mulan.state_dict(), folder / "pytorch_model.bin")
    config["audio_model"]["name"], config["text_model"]["name"] = "OpenMuQ/MuQ-large-msd-iter", "xlm-roberta-base"
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.fixture(scope="module")
def captioner(model, tmp_path_factory):
    return MuQCaptioner(model=str(model), device="cpu", cache_dir=tmp_path_factory.mktemp("cache"))


def loaded(captioner):
    captioner.load()
    return captioner._mulan


def sound(n_samples, seed=0):
    generator = torch.Generator().manual_seed(seed)
    tone = torch.sin(torch.arange(n_samples) * (0.02 + 0.05 * seed))
    return 0.3 * tone + 0.1 * torch.randn(n_samples, generator=generator)


def few_words(group):
    return {"mood": ["Dark", "Happy"], "genre": ["Rock", "Pop"]}.get(group, words(group)[:3])


LENGTHS = [1, 50, 3 * RATE, 12 * RATE, 25 * RATE]


@pytest.fixture(scope="module")
def sounds():
    return [sound(n_samples, seed) for seed, n_samples in enumerate(LENGTHS)]


@pytest.fixture(scope="module")
def embeddings(captioner, sounds):
    return captioner.embed(sounds)


def test_sounds_of_any_length_get_captions_with_tags_of_json_types(captioner, sounds):
    for caption in captioner(sounds):
        assert caption.text == UNKNOWN or caption.text.startswith(("A ", "An "))
        assert caption.text.endswith(".")
        assert list(caption.tags) == list(GROUPS)
        assert json.loads(json.dumps(caption.tags)) == caption.tags
        for group, best in caption.tags.items():
            assert set(best) <= set(words(group))
            assert list(best.values()) == sorted(best.values(), reverse=True)


def test_a_sound_gets_the_same_alone_as_among_others(captioner, sounds, embeddings):
    captions = captioner(sounds)
    for n, waveform in enumerate(sounds):
        assert torch.allclose(captioner.embed([waveform])[0], embeddings[n], atol=1e-4)
        assert captioner([waveform])[0].text == captions[n].text


def test_sounds_differ_by_more_than_that(embeddings):
    distances = torch.cdist(embeddings, embeddings) + torch.eye(len(embeddings))
    assert distances.min() > 1e-3


def test_embeddings_have_unit_length_though_their_clips_differ(captioner, embeddings):
    assert torch.allclose(embeddings.norm(dim=-1), torch.ones(len(LENGTHS)), atol=1e-5)
    tone, noise = torch.sin(torch.arange(CLIP) * 0.3), 0.5 * torch.randn(CLIP, generator=torch.manual_seed(1))
    one, other = captioner.embed([tone, noise])
    assert (one + other).norm() < 1.999  # there is something to make longer
    both = captioner.embed([torch.cat([tone, noise])])[0]
    assert torch.allclose(both, (one + other) / (one + other).norm(), atol=1e-4)


@pytest.mark.parametrize("n_samples", [6 * RATE, 12 * RATE, 20 * RATE])
def test_the_mean_before_that_is_what_muq_gives(captioner, n_samples):
    with torch.no_grad():
        from_muq = loaded(captioner)(wavs=sound(n_samples)[None])[0]
    mine = captioner.embed([sound(n_samples)])[0]
    assert torch.allclose(mine, from_muq / from_muq.norm(), atol=1e-4)


def test_clips_are_whole_and_filled_from_the_beginning():
    assert split_clips(torch.tensor([7.0]), 4).tolist() == [[7, 7, 7, 7]]
    assert split_clips(torch.arange(3.0), 4).tolist() == [[0, 1, 2, 0]]
    assert split_clips(torch.arange(4.0), 4).tolist() == [[0, 1, 2, 3]]
    assert split_clips(torch.arange(6.0), 4).tolist() == [[0, 1, 2, 3], [4, 5, 0, 1]]


def test_silence_does_not_even_load_the_model():
    captioner = MuQCaptioner(model="/nowhere/at/all")
    captions = captioner([torch.zeros(0), torch.zeros(RATE), torch.full((RATE,), 1e-5)])
    assert [caption.text for caption in captions] == [SILENCE] * 3
    assert [caption.tags for caption in captions] == [{}] * 3
    assert captioner([]) == []


def test_silence_among_sounds_keeps_its_place(captioner, sounds):
    captions = captioner([torch.zeros(RATE), sounds[2], torch.zeros(0), sounds[3]])
    assert [caption.text == SILENCE for caption in captions] == [True, False, True, False]
    assert captions[3].text == captioner([sounds[3]])[0].text


@pytest.mark.parametrize("waveform", [torch.ones(1, RATE), torch.full((RATE,), float("nan")), torch.ones(())])
def test_what_is_no_sound_is_refused(captioner, waveform):
    with pytest.raises(ValueError, match="waveform 1"):
        captioner([torch.zeros(5), waveform])


@pytest.fixture
def texts_embedded(monkeypatch, model):
    """Counts, by text, what is embedded from here on. There are fewer words, for speed."""
    from muq import MuQMuLan

    monkeypatch.setattr("specgan.captions.muq.words", few_words)

    counts = Counter()
    original = MuQMuLan.extract_text_latents

    def counting(self, texts):
        counts.update([tuple(texts)])
        return original(self, texts)

    monkeypatch.setattr(MuQMuLan, "extract_text_latents", counting)
    return counts


def test_words_are_embedded_once_one_at_a_time_and_then_read(model, tmp_path, sounds, texts_embedded, caplog):
    first = MuQCaptioner(model=str(model), device="cpu", cache_dir=tmp_path)(sounds[2:3])
    assert len(texts_embedded) == sum(len(few_words(group)) for group in GROUPS)
    assert set(texts_embedded.values()) == {1}
    assert all(len(texts) == 1 for texts in texts_embedded)
    assert ("dark mood",) in texts_embedded
    texts_embedded.clear()
    assert MuQCaptioner(model=str(model), device="cpu", cache_dir=tmp_path)(sounds[2:3]) == first
    assert not texts_embedded
    (file,) = tmp_path.iterdir()
    whole = file.read_bytes()

    wrong = np.load(file)
    np.save(file, wrong[1:])
    cut = file.read_bytes()
    for broken in (b"", b"not an array", whole[: len(whole) // 2], cut):
        file.write_bytes(broken)
        texts_embedded.clear()
        caplog.clear()
        assert MuQCaptioner(model=str(model), device="cpu", cache_dir=tmp_path)(sounds[2:3]) == first
        assert texts_embedded
        assert "embedded again" in caplog.text
        assert file.read_bytes() == whole
    assert list(tmp_path.iterdir()) == [file]


def test_other_prompts_and_other_weights_have_caches_of_their_own(model, tmp_path, texts_embedded):
    captioner = MuQCaptioner(model=str(model), device="cpu", cache_dir=tmp_path)
    mulan = loaded(captioner)
    other = MuQCaptioner(model=str(model), device="cpu", cache_dir=tmp_path, prompts={"genre": "{} music"})
    other.load()
    assert texts_embedded["rock music",] == 1
    with torch.no_grad():
        mulan.mulan.text.transformer.layers[0][1][4].weight[0, 0] += 0.1
    captioner._embed_words(mulan)
    assert len(list(tmp_path.iterdir())) == 3


def test_a_cache_that_cannot_be_written_costs_a_warning_only(model, tmp_path, sounds, texts_embedded, caplog):
    (tmp_path / "file").write_text("")
    captioner = MuQCaptioner(model=str(model), device="cpu", cache_dir=tmp_path / "file")
    assert captioner(sounds[2:3])[0].tags
    assert "cannot be" in caplog.text


def test_the_cache_is_where_the_desktop_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert default_cache_dir() == tmp_path / "specgan"
    monkeypatch.setenv("XDG_CACHE_HOME", "")
    monkeypatch.setenv("HOME", "/home/someone")
    assert str(default_cache_dir()) == "/home/someone/.cache/specgan"


def test_the_licence_of_the_weights_is_said_once(model, captioner, sounds, caplog):
    captioner = MuQCaptioner(model=str(model), device="cpu", cache_dir=captioner.cache_dir)
    assert "CC BY-NC" not in caplog.text
    captioner(sounds[2:3])
    captioner(sounds[2:3])
    assert caplog.text.count("CC BY-NC 4.0") == 1
    assert [record.levelno for record in caplog.records if "CC BY-NC" in record.message] == [logging.WARNING]


def test_a_captioner_can_be_pickled_before_it_is_loaded(model, captioner, sounds):
    copy = pickle.loads(pickle.dumps(MuQCaptioner(model=str(model), device="cpu", cache_dir=captioner.cache_dir)))
    assert copy(sounds[3:4]) == captioner(sounds[3:4])


def test_loading_leaves_random_numbers_and_transformers_as_they_were(model):
    from transformers.models.wav2vec2_conformer import modeling_wav2vec2_conformer as modeling

    encoder = modeling.Wav2Vec2ConformerEncoder
    random.seed(3)
    torch.manual_seed(3)
    expected = random.random(), torch.rand(1)
    random.seed(3)
    torch.manual_seed(3)
    load_mulan(str(model))
    assert (random.random(), torch.rand(1)) == expected
    assert modeling.Wav2Vec2ConformerEncoder is encoder


def test_the_encoder_returns_what_goes_into_its_layers_and_what_comes_out(captioner):
    """As transformers did to 4.57; a captioner that reads another layer than the last needs them all."""
    conformer = loaded(captioner).mulan.audio.model.model.conformer
    x = torch.randn(2, 9, 16, generator=torch.manual_seed(0))
    with torch.no_grad():
        states = conformer(x, output_hidden_states=True)["hidden_states"]
        assert torch.equal(states[0], x)
        positions = conformer.embed_positions(x)
        for n, layer in enumerate(conformer.layers[:-1]):
            assert torch.allclose(states[n + 1], layer(states[n], relative_position_embeddings=positions), atol=1e-6)
        last = conformer.layer_norm(conformer.layers[-1](states[-2], relative_position_embeddings=positions))
    assert torch.allclose(states[-1], last, atol=1e-6)
    assert len(states) == len(conformer.layers) + 1


def test_safetensors_give_the_same_as_a_bin(model, captioner, tmp_path, sounds, embeddings):
    from safetensors.torch import save_file

    config = json.loads((model / "config.json").read_text())
    for part in ("audio_model", "text_model"):
        config[part]["name"] = str(model / config[part]["name"])  # absolute works as well
    (tmp_path / "config.json").write_text(json.dumps(config))
    state = torch.load(model / "pytorch_model.bin", weights_only=True)
    save_file({key: value.clone() for key, value in state.items()}, tmp_path / "model.safetensors")
    copy = MuQCaptioner(model=str(tmp_path), device="cpu", cache_dir=captioner.cache_dir)
    assert torch.equal(copy.embed(sounds), embeddings)


def test_without_weights_the_message_says_how_to_get_them(empty_hub, tmp_path):
    pytest.importorskip("muq")
    with pytest.raises(MissingWeightsError) as caught:
        MuQCaptioner(cache_dir=tmp_path)([sound(RATE)])
    message = str(caught.value)
    for part in ("5.1 GB", "CC BY-NC 4.0", "hf download OpenMuQ/MuQ-MuLan-large", "captioner.model=FOLDER"):
        assert part in message


def test_what_is_in_the_hubs_cache_needs_no_network(empty_hub, model, captioner, tmp_path, sounds, embeddings):
    names = {
        "OpenMuQ/MuQ-MuLan-large": model,
        "OpenMuQ/MuQ-large-msd-iter": model / "OpenMuQ/MuQ-large-msd-iter",
        "xlm-roberta-base": model / "xlm-roberta-base",
    }
    for name, folder in names.items():
        cached = empty_hub / f"models--{name.replace('/', '--')}"
        (cached / "refs").mkdir(parents=True)
        (cached / "refs/main").write_text("0" * 40)
        (cached / "snapshots" / ("0" * 40)).mkdir(parents=True)
        for file in folder.iterdir():
            if file.is_file():
                (cached / "snapshots" / ("0" * 40) / file.name).symlink_to(file)
    copy = MuQCaptioner(device="cpu", cache_dir=captioner.cache_dir)  # by the published name
    assert torch.equal(copy.embed(sounds), embeddings)


def test_a_copy_without_its_parts_says_which_is_missing(empty_hub, model, tmp_path):
    (tmp_path / "config.json").write_text((model / "config.json").read_text())
    with pytest.raises(MissingWeightsError, match=r"^OpenMuQ/MuQ-large-msd-iter: .*config\.json"):
        load_mulan(str(tmp_path))
    with pytest.raises(MissingWeightsError, match=r"no config\.json in this folder"):
        load_mulan(str(tmp_path.parent))
    (tmp_path / "OpenMuQ").symlink_to(model / "OpenMuQ")
    (tmp_path / "xlm-roberta-base").mkdir()
    (tmp_path / "xlm-roberta-base/config.json").write_text("{}")
    with pytest.raises(MissingWeightsError, match=r"xlm-roberta-base: no model\.safetensors"):
        load_mulan(str(tmp_path))


def test_other_models_are_told_from_a_muq_mulan(model, tmp_path):
    with pytest.raises(ValueError, match=r"not a MuQ-MuLan model"):
        load_mulan(str(model / "OpenMuQ/MuQ-large-msd-iter"))
    for name in ("config.json", "OpenMuQ", "xlm-roberta-base"):
        (tmp_path / name).symlink_to(model / name)
    state = torch.load(model / "pytorch_model.bin", weights_only=True)
    torch.save({key: value for key, value in state.items() if "to_latents" not in key}, tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match=r"lacks mulan\.\w+_to_latents"):
        load_mulan(str(tmp_path))


def test_a_missing_package_is_named_with_its_command(monkeypatch, model):
    monkeypatch.setitem(__import__("sys").modules, "muq", None)
    with pytest.raises(ImportError, match=r'pip install -e "\.\[captions\]"'):
        MuQCaptioner(model=str(model))([sound(RATE)])


SCORES = {
    "mood": {"Dark": 0.3, "Happy": 0.2, "Sad": 0.05},
    "genre": {"Rock": 0.4, "Pop": -0.1},
    "instrument": {"Electric Guitar": 0.5, "Guitar": 0.4, "Drums": 0.2, "Piano": 0.15},
    "character": {"heavy": 0.3, "soft": 0.2, "fast": 0.1},
}


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "A Dark Rock track featuring Electric Guitar and Drums. Characterized as heavy."),
        ({"mood": {}}, "A Rock track featuring Electric Guitar and Drums. Characterized as heavy."),
        ({"mood": {"Eerie": 1.0}, "character": {}}, "An Eerie Rock track featuring Electric Guitar and Drums."),
        ({"mood": {}, "genre": {}, "character": {}}, "A track featuring Electric Guitar and Drums."),
        ({"mood": {}, "genre": {}, "instrument": {}}, "A track. Characterized as heavy."),
        ({"instrument": {"Drums": 0.11}}, "A Dark Rock track featuring Drums. Characterized as heavy."),
        ({"mood": {}, "genre": {"UK Garage": 1.0}, "instrument": {}, "character": {}}, "A UK Garage track."),
        ({group: {} for group in SCORES}, UNKNOWN),
        ({group: dict.fromkeys(scores, 0.1) for group, scores in SCORES.items()}, UNKNOWN),
    ],
)
def test_a_caption_says_what_stands_out_and_leaves_out_the_rest(changes, text):
    assert describe({**SCORES, **changes}) == text


def test_thresholds_and_numbers_of_words_are_of_each_group():
    thresholds = {"mood": 0.3, "genre": 0.0, "instrument": 0.0, "character": 0.0}
    most = {"mood": 1, "genre": 2, "instrument": 3, "character": 0}
    expected = "A Rock track featuring Electric Guitar, Drums and Piano."
    assert describe(SCORES, thresholds=thresholds, most=most) == expected  # 0.3 does not exceed 0.3


def test_scores_are_margins_over_the_group():
    assert score(torch.tensor([0.5, 0.2, 0.2])).tolist() == pytest.approx([0.2, -0.1, -0.1])
    assert score(torch.full((4,), 0.9)).abs().max() < 1e-6  # a group that says nothing, however near


def test_thresholds_reach_the_captions(model, captioner, sounds):
    settings = {"model": str(model), "device": "cpu", "cache_dir": captioner.cache_dir}
    nothing = MuQCaptioner(thresholds=dict.fromkeys(GROUPS, 3.0), **settings)(sounds[3:])
    everything = MuQCaptioner(thresholds=dict.fromkeys(GROUPS, -3.0), most={"character": 1}, **settings)(sounds[3:])
    assert [caption.text for caption in nothing] == [UNKNOWN] * 2
    assert nothing[0].tags["mood"]  # scores are there all the same
    for caption in everything:
        best = {group: next(iter(of_group)) for group, of_group in caption.tags.items()}
        assert f" {best['mood']} {best['genre']} track featuring {best['instrument']} and " in caption.text
        assert caption.text.endswith(f". Characterized as {best['character']}.")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"thresholds": {"tempo": 0.1}}, r"thresholds has \['tempo'\]"),
        ({"most": {"genres": 1}}, r"most has \['genres'\]"),
        ({"prompts": {"genre": "music"}}, r"'music' has no \{\} in place"),
        ({"batch_size": 0}, r"batch_size is 0"),
    ],
)
def test_impossible_settings_are_refused(settings, message):
    with pytest.raises(ValueError, match=message):
        MuQCaptioner(**settings)
