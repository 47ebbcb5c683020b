"""specgan.captions.qwen2_audio: the real code path with a tiny model of random weights, in the real one's layout."""

import json
import logging
import shutil
import sys

import pytest
import torch
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers

from specgan.captions import qwen2_audio
from specgan.captions.caption import SILENCE
from specgan.captions.qwen2_audio import Qwen2AudioCaptioner
from specgan.hub import MissingWeightsError

SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|AUDIO|>", "<|audio_bos|>", "<|audio_eos|>")
# as in the real model's chat_template.json, written anew: ChatML, each sound numbered and between its two tokens
CHAT_TEMPLATE = (
    "{% set count = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}"
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n{% endif %}<|im_start|>{{ message['role'] }}\n"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for part in message['content'] %}"
    "{% if 'audio_url' in part or part['type'] == 'audio' %}{% set count.value = count.value + 1 %}"
    "Audio {{ count.value }}: <|audio_bos|><|AUDIO|><|audio_eos|>\n{% elif 'text' in part %}{{ part['text'] }}"
    "{% endif %}{% endfor %}{% endif %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def write_json(path, content):
    path.write_text(json.dumps(content))


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """A folder like the real model's: its names of files, weights and settings, its numbers made small."""
    from transformers import (
        GenerationConfig,
        Qwen2AudioConfig,
        Qwen2AudioForConditionalGeneration,
        WhisperFeatureExtractor,
    )

    folder = tmp_path_factory.mktemp("tiny_qwen2_audio")
    vocab = {symbol: i for i, symbol in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    tokenizer = Tokenizer(models.BPE(vocab=vocab, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(list(SPECIAL))
    tokenizer.save(str(folder / "tokenizer.json"))
    ids = {token: tokenizer.token_to_id(token) for token in SPECIAL}
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "Qwen2Tokenizer",
            "processor_class": "Qwen2AudioProcessor",
            "bos_token": None,
            "eos_token": "<|im_end|>",
            "pad_token": "<|endoftext|>",
            "unk_token": None,
            "padding_side": "right",  # the captioner has to see to it
            "model_max_length": 8192,
        },
    )
    write_json(folder / "chat_template.json", {"chat_template": CHAT_TEMPLATE})
    WhisperFeatureExtractor(feature_size=128, processor_class="Qwen2AudioProcessor").save_pretrained(folder)
    GenerationConfig(
        do_sample=True,  # as the real one: without our say it would draw words by chance
        eos_token_id=[ids["<|endoftext|>"], ids["<|im_end|>"]],
        max_new_tokens=2048,
        pad_token_id=ids["<|endoftext|>"],
        repetition_penalty=1.1,
        temperature=0.7,
        top_k=20,
        top_p=0.5,
    ).save_pretrained(folder)
    config = {
        "architectures": ["Qwen2AudioForConditionalGeneration"],
        "model_type": "qwen2_audio",
        "audio_token_index": ids["<|AUDIO|>"],
        "audio_config": {
            "model_type": "qwen2_audio_encoder",
            "num_mel_bins": 128,
            "encoder_layers": 1,
            "encoder_attention_heads": 2,
            "encoder_ffn_dim": 32,
            "d_model": 16,
        },
        "text_config": {
            "model_type": "qwen2",
            "bos_token_id": ids["<|endoftext|>"],
            "eos_token_id": ids["<|im_end|>"],
            "hidden_size": 32,
            "intermediate_size": 64,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 4,
            "max_position_embeddings": 8192,
            "vocab_size": 272,  # more than there are tokens, as in the real one
        },
    }
    write_json(folder / "config.json", config)
    torch.manual_seed(0)
    model = Qwen2AudioForConditionalGeneration(Qwen2AudioConfig.from_dict(config))
    with torch.no_grad():
        for weight in model.parameters():
            # transformers' 0.02 leaves a model of this width deaf: it would say the same of every sound
            if weight.ndim > 1:
                weight.normal_(std=0.3)
        # it speaks ASCII: other bytes, which make no text by themselves, and special tokens never win
        said = torch.zeros(272, dtype=torch.bool)
        said[[vocab[symbol] for symbol in vocab if symbol.isascii()]] = True
        model.lm_head.weight[~said] = 0.0
    save_in_real_layout(model, folder)
    return folder


def save_in_real_layout(model, folder):
    """Two files and an index, under the names that weights had in 2024, which the published files still carry."""
    model.save_pretrained(folder / "new")
    weights = load_file(folder / "new" / "model.safetensors")
    shutil.rmtree(folder / "new")
    weights = {old_name(name): weight for name, weight in weights.items()}
    names = sorted(weights)
    shards = {"model-00001-of-00002.safetensors": names[::2], "model-00002-of-00002.safetensors": names[1::2]}
    for file, of_file in shards.items():
        save_file({name: weights[name] for name in of_file}, folder / file, metadata={"format": "pt"})
    total = sum(weight.numel() * weight.element_size() for weight in weights.values())
    places = {name: file for file, of_file in shards.items() for name in of_file}
    write_json(folder / "model.safetensors.index.json", {"metadata": {"total_size": total}, "weight_map": places})


def old_name(name):
    if name.startswith("lm_head"):
        return f"language_model.{name}"
    if name.startswith("model.language_model."):
        return name.replace("model.language_model.", "language_model.model.", 1)
    return name.removeprefix("model.")


@pytest.fixture
def captioner(tiny):
    return make_captioner(tiny)


def make_captioner(folder, **settings):
    return Qwen2AudioCaptioner(**{"model": str(folder), "max_new_tokens": 12, "dtype": "float32"} | settings)


def sound(duration_s, *, seed=0):
    generator = torch.Generator().manual_seed(seed)
    n_samples = round(duration_s * 16000)
    t = torch.arange(n_samples) / 16000
    pitch = 100 + 2000 * torch.rand(1, generator=generator)
    return 0.3 * torch.sin(6.283 * pitch * t) + 0.05 * torch.randn(n_samples, generator=generator)


def texts(captions):
    return [caption.text for caption in captions]


@pytest.fixture(scope="module")
def mixed():
    return [sound(0.01, seed=1), sound(3.0, seed=2), torch.zeros(16000), sound(31.0, seed=3), sound(0.5, seed=4)]


def test_a_sound_gets_the_same_caption_alone_and_in_any_batch(tiny, captioner, mixed):
    together = captioner(mixed)
    assert len(together) == 5
    assert together[2].text == SILENCE
    heard = texts(together[:2] + together[3:])
    assert len(set(heard)) == 4  # the tiny model is not deaf, or this test would show nothing
    assert all(heard)
    assert [captioner([waveform])[0] for waveform in mixed] == together
    assert make_captioner(tiny, batch_size=2)(mixed) == together
    assert [caption.tags for caption in together] == [{}] * 5


def test_a_caption_is_the_answer_alone_in_one_line(tiny, captioner):
    [caption] = captioner([sound(1.0)])
    assert caption.text == " ".join(caption.text.split())
    assert "assistant" not in caption.text
    assert not any(token in caption.text for token in SPECIAL)
    assert 1 <= len(caption.text) <= 12  # a token of this tokenizer is a character


def test_the_weights_of_the_published_names_are_all_read(captioner, tiny):
    captioner([sound(0.2)])
    _, model = captioner._loaded
    stored = load_file(tiny / "model-00001-of-00002.safetensors") | load_file(tiny / "model-00002-of-00002.safetensors")
    loaded = {old_name(name): weight for name, weight in model.state_dict().items()}
    assert loaded.keys() == stored.keys()
    assert all(torch.equal(loaded[name], stored[name]) for name in stored)


def test_long_sounds_are_described_in_equal_pieces_and_that_is_said_once(captioner, caplog):
    long = torch.cat([sound(20.5, seed=5), sound(20.5, seed=6)])
    with caplog.at_level(logging.WARNING):
        [caption] = captioner([long])
        captioner([long])
    assert caption.text == " ".join(texts(captioner([long[: len(long) // 2], long[len(long) // 2 :]])))
    assert [record.message.startswith("a sound of 41 s") for record in caplog.records if "30 s" in record.message] == [
        True
    ]


def test_silent_pieces_of_a_long_sound_are_left_out(captioner):
    loud = sound(30.0, seed=7)
    assert captioner([torch.cat([loud, torch.zeros(30 * 16000)])]) == captioner([loud])


def test_thirty_seconds_are_one_piece_and_nothing_is_cut(captioner, monkeypatch):
    seen = []
    monkeypatch.setattr(captioner, "_describe_batch", lambda pieces: [seen.append(len(p)) or "x" for p in pieces])
    captioner([sound(30.0), sound(30.0)[:160], sound(61.0)])
    assert seen[:2] == [480000, 1600]  # the short one is padded with silence to 0.1 s
    assert sum(seen[2:]) == 61 * 16000
    assert len(seen[2:]) == 3


@pytest.mark.parametrize("quiet", [torch.zeros(16000), torch.zeros(0), torch.full((800,), 5e-5)])
def test_silence_needs_no_model(quiet):
    assert texts(Qwen2AudioCaptioner(model="no/such-model")([quiet])) == [SILENCE]


def test_no_sounds_no_captions():
    assert Qwen2AudioCaptioner(model="no/such-model")([]) == []


def test_the_prompt_the_sounds_and_the_settings_reach_the_model(tiny):
    captioner = make_captioner(tiny, prompt="Name the drum.", max_new_tokens=5)
    captioner([sound(0.2)])
    processor, model = captioner._loaded
    calls, generate = [], model.generate
    model.generate = lambda **inputs: calls.append(inputs) or generate(**inputs)
    [first, second] = captioner([sound(3.0), sound(0.5)])
    [inputs] = calls
    assert inputs["max_new_tokens"] == 5
    assert inputs["do_sample"] is False
    assert max(len(first.text), len(second.text)) <= 5
    chats = processor.batch_decode(inputs["input_ids"])
    assert all(chat.endswith("<|audio_eos|>\nName the drum.<|im_end|>\n<|im_start|>assistant\n") for chat in chats)
    assert [chat.count("<|AUDIO|>") for chat in chats] == [75, 12]  # 25 a second
    assert inputs["attention_mask"][1, 0] == 0  # padded at the left
    assert inputs["attention_mask"][:, -1].tolist() == [1, 1]
    assert inputs["feature_attention_mask"].sum(-1).tolist() == [300, 50]  # frames of 10 ms


def test_another_prompt_gives_another_answer(tiny, captioner):
    assert captioner([sound(1.0)]) != make_captioner(tiny, prompt="Which instrument?")([sound(1.0)])


def test_the_model_is_loaded_once_and_captions_repeat(tiny, captioner, monkeypatch):
    loads, load = [], qwen2_audio._load
    monkeypatch.setattr(qwen2_audio, "_load", lambda *args, **settings: loads.append(args) or load(*args, **settings))
    assert captioner([sound(1.0)]) == captioner([sound(1.0)]) == make_captioner(tiny)([sound(1.0)])
    assert len(loads) == 2  # one for each captioner


def test_bfloat16_is_the_default_and_works_here(tiny):
    captioner = Qwen2AudioCaptioner(model=str(tiny), max_new_tokens=6)
    [caption] = captioner([sound(1.0)])
    assert caption.text
    assert captioner._loaded[1].dtype == torch.bfloat16


def test_nothing_noisy_is_said_on_the_way(tiny, captioner, recwarn, caplog):
    captioner([sound(1.0), sound(0.1)])
    assert [str(warning.message) for warning in recwarn] == []
    assert [record.message for record in caplog.records if record.levelno >= logging.WARNING] == []


@pytest.fixture
def unreachable(monkeypatch, empty_hub):
    """A machine that has never seen the model, with enough memory for it."""
    monkeypatch.setattr(qwen2_audio, "_free_memory", lambda device: 64e9)


def test_missing_weights_say_what_how_large_and_how_to_get_them(unreachable):
    with pytest.raises(MissingWeightsError) as caught:
        Qwen2AudioCaptioner()([sound(1.0)])
    message = str(caught.value)
    for part in (
        "Qwen/Qwen2-Audio-7B-Instruct",
        "16.8 GB",
        "Apache-2.0",
        "hf download Qwen/Qwen2-Audio-7B-Instruct",
        "--local-dir",
    ):
        assert part in message


def test_other_missing_models_are_named(unreachable):
    name = "some/other-model"
    with pytest.raises(MissingWeightsError, match="no such folder, and it cannot be fetched") as caught:
        Qwen2AudioCaptioner(model=name)([sound(1.0)])
    assert f"hf download {name}" in str(caught.value)
    assert "16.8 GB" not in str(caught.value)


def copy_of(tiny, tmp_path):
    return shutil.copytree(tiny, tmp_path / "copy")


@pytest.mark.parametrize("file", ["config.json", "model-00002-of-00002.safetensors", "preprocessor_config.json"])
def test_an_incomplete_folder_is_named_with_what_it_lacks(tiny, tmp_path, file):
    folder = copy_of(tiny, tmp_path)
    (folder / file).unlink()
    with pytest.raises(MissingWeightsError, match="is not complete") as caught:
        make_captioner(folder)([sound(1.0)])
    assert str(folder) in str(caught.value)
    assert "hf download Qwen/Qwen2-Audio-7B-Instruct" in str(caught.value)


def test_a_missing_tokenizer_is_not_made_up(tiny, tmp_path):
    folder = copy_of(tiny, tmp_path)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(MissingWeightsError, match="tokenizer"):
        make_captioner(folder)([sound(1.0)])


def test_a_broken_download_is_not_complete(tiny, tmp_path):
    file = copy_of(tiny, tmp_path) / "model-00002-of-00002.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(MissingWeightsError, match=r"model-00002-of-00002\.safetensors cannot be read"):
        make_captioner(file.parent)([sound(1.0)])


def test_weights_that_are_not_in_the_files_are_not_made_up(tiny, tmp_path):
    file = copy_of(tiny, tmp_path) / "model-00001-of-00002.safetensors"
    weights = load_file(file)
    gone = sorted(weights)[0]
    del weights[gone]
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(MissingWeightsError, match="lacks the weights"):
        make_captioner(file.parent)([sound(1.0)])


def test_a_model_of_another_kind_is_refused(tiny, tmp_path):
    folder = copy_of(tiny, tmp_path)
    write_json(folder / "config.json", {"model_type": "whisper"})
    with pytest.raises(ValueError, match=r"'whisper'.*qwen2_audio"):
        make_captioner(folder)([sound(1.0)])


def test_missing_transformers_names_the_command(tiny, captioner, monkeypatch):
    monkeypatch.setitem(sys.modules, "transformers", None)
    with pytest.raises(ModuleNotFoundError, match=r'pip install -e "\.\[captions\]"'):
        captioner([sound(1.0)])


def test_too_little_memory_is_said_before_anything_is_fetched(monkeypatch):
    monkeypatch.setattr(qwen2_audio, "_free_memory", lambda device: 8_000_000_000)
    monkeypatch.setattr(qwen2_audio, "fetch_folder", lambda *_, **__: pytest.fail("would download 16.8 GB for nothing"))
    with pytest.raises(MemoryError, match=r"needs 20\.2 GB.* 8\.0 GB are free on cpu.*batch_size"):
        Qwen2AudioCaptioner(device="cpu")([sound(1.0)])
    with pytest.raises(MemoryError, match=r"needs 37\.0 GB"):
        Qwen2AudioCaptioner(device="cpu", dtype="float32", batch_size=2)([sound(1.0)])


def test_the_memory_for_a_folder_follows_from_its_weight_files(tiny, monkeypatch):
    stored = json.loads((tiny / "model.safetensors.index.json").read_text())["metadata"]["total_size"]  # float32
    monkeypatch.setattr(qwen2_audio, "_free_memory", lambda device: round(stored * 1.05))
    assert make_captioner(tiny, batch_size=1)([sound(0.2)])
    with pytest.raises(MemoryError, match="batch_size"):
        make_captioner(tiny, batch_size=2)([sound(0.2)])
    assert make_captioner(tiny, batch_size=2, dtype="bfloat16")([sound(0.2)])


def test_the_gpu_is_asked_for_its_own_memory(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (7, 80))
    assert qwen2_audio._free_memory(torch.device("cuda:1")) == 7


@pytest.mark.parametrize(
    ("setting", "value"), [("prompt", "  "), ("max_new_tokens", 0), ("batch_size", 0), ("dtype", "int8")]
)
def test_impossible_settings_are_named(setting, value):
    with pytest.raises(ValueError, match=setting):
        Qwen2AudioCaptioner(**{setting: value})


def test_an_unknown_device_is_named(tiny):
    with pytest.raises(ValueError, match="device='toaster'"):
        make_captioner(tiny, device="toaster")([sound(1.0)])


def test_two_channels_are_refused(captioner):
    with pytest.raises(ValueError, match=r"\(2, 800\)"):
        captioner([torch.ones(2, 800)])
