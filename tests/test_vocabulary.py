"""specgan.captions.vocabulary: the words that captions choose from."""

import re
from importlib.resources import files

import pytest

from specgan.captions.vocabulary import GROUPS, OPPOSITES, clash, words


def test_groups_hold_words_that_belong_there():
    assert {"Dark", "Happy", "Angry"} <= set(words("mood"))
    assert {"Rock", "Hip Hop", "R&B", "African", "Baroque"} <= set(words("genre"))
    assert {"Electric Guitar", "Violin", "Marimba", "Xylophone", "Female Vocals"} <= set(words("instrument"))
    assert {"heavy", "fast", "quiet"} <= set(words("character"))


def test_no_word_comes_twice_in_whichever_group():
    every = [word.lower() for group in GROUPS for word in words(group)]
    assert len(every) == len(set(every)) > 150


@pytest.mark.parametrize(
    "word",
    [
        *("Bicycle Bell", "Strum", "Pizzicato", "Tapping", "Scratching", "Rimshot", "Musical Ensemble", "No Vocals"),
        *("Clasical", "Harpsicord", "Lol", "Birds", "English", "Bassline", "Jingle", "Music"),
    ],
)
def test_what_is_no_instrument_negations_typos_and_the_rest_are_out(word):
    assert word.lower() not in {other.lower() for group in GROUPS for other in words(group)}


def test_words_read_well_in_a_sentence():
    for group in GROUPS:
        for word in words(group):
            assert re.fullmatch(r"[A-Za-z&' -]+", word) and word == word.strip()
            assert not re.search(r"\b(no|not|music|instrument)\b", word.lower())
            assert word.islower() if group == "character" else word[0].isupper()


def test_a_group_that_is_none_is_refused_with_those_there_are():
    with pytest.raises(ValueError, match=r"'tempo'.*mood, genre, instrument, character"):
        words("tempo")


def test_a_changed_list_changes_nobody_elses():
    words("genre").clear()
    assert words("genre")


def test_opposites_are_words_and_clash_both_ways():
    every = {word for group in GROUPS for word in words(group)}
    for pair in OPPOSITES:
        assert len(pair) == 2 and pair <= every
        one, other = pair
        assert clash(one, other) and clash(other, one)


def test_a_part_of_a_name_clashes_and_another_does_not():
    assert clash("Guitar", "Electric Guitar") and clash("Rock", "Hard Rock")
    assert not clash("Electric Guitar", "Electric Piano")
    assert not clash("Horn", "Harp")


def test_the_sources_are_named_beside_the_words():
    text = files("specgan.captions").joinpath("words", "README.md").read_text(encoding="utf-8")
    assert "AudioSet ontology" in text and "CC BY-SA 4.0" in text and "What was changed" in text
    assert "MagnaTagATune" in text
