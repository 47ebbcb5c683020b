"""The licence of the recordings that a generator learned from, as its user states it; it is never guessed."""

from dataclasses import dataclass

OTHER = "other"
# Identifiers of the Hugging Face hub, but for those of single models.
# Source: https://huggingface.co/docs/hub/repositories-licenses
USUAL = (
    *("cc0-1.0", "cc-by-4.0", "cc-by-sa-4.0", "cc-by-nc-4.0", "cc-by-nc-sa-4.0", "cc-by-nd-4.0", "cc-by-nc-nd-4.0"),
    *("cc-by-3.0", "cc-by-sa-3.0", "cc-by-nc-3.0", "odbl", "odc-by", "pddl", "apache-2.0", "mit", "unknown", OTHER),
)
_RARE = (
    *("cc", "cc-by-2.0", "cc-by-2.5", "cc-by-nc-2.0", "cc-by-nc-nd-3.0", "cc-by-nc-sa-2.0", "cc-by-nc-sa-3.0", "c-uda"),
    *("cdla-sharing-1.0", "cdla-permissive-1.0", "cdla-permissive-2.0", "openmdw-1.0", "openrail", "gfdl", "zlib"),
    *("afl-3.0", "artistic-2.0", "bsl-1.0", "bsd", "bsd-2-clause", "bsd-3-clause", "bsd-3-clause-clear", "wtfpl"),
    *("ecl-2.0", "epl-1.0", "epl-2.0", "eupl-1.1", "eupl-1.2", "agpl-3.0", "gpl", "gpl-2.0", "gpl-3.0", "lgpl"),
    *("lgpl-2.1", "lgpl-3.0", "lgpl-lr", "isc", "lppl-1.3c", "ms-pl", "mpl-2.0", "osl-3.0", "postgresql", "ofl-1.1"),
    *("ncsa", "unlicense", "etalab-2.0"),
)


@dataclass(frozen=True)
class Licence:
    """As it was stated.

    Args:
        identifier: of the hub.
        name: of one that has no identifier there, if `identifier` is "other".
    Raises:
        ValueError: it was not stated, or not in a form that the hub takes.
    """

    identifier: str | None
    name: str | None = None

    def __post_init__(self) -> None:
        choice = f"one of the hub's identifiers: {', '.join(USUAL)} (or a rarer one)"
        if self.identifier is None:
            raise ValueError(
                "data_license is not given: under which licence are the recordings that the generator was trained on? "
                f"It goes into the card as you state it; data_license={choice}"
            )
        if self.identifier not in (*USUAL, *_RARE):
            raise ValueError(
                f"data_license is {self.identifier}; {choice}. One that has none: data_license={OTHER} "
                "data_license_name=<its name>"
            )
        if (self.identifier == OTHER) != (self.name is not None):
            raise ValueError(
                f"data_license is {self.identifier}, and data_license_name is {self.name or 'not given'}; the name "
                f"belongs to data_license={OTHER}, and to no other"
            )

    @property
    def shown(self) -> str:
        return str(self.identifier if self.name is None else self.name)
