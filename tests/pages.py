"""A page of ours as a browser reads it."""

from html.parser import HTMLParser
from pathlib import Path


class Page(HTMLParser):
    """The tags with their attributes, the whole text, and the text of each element by tag; styles are no text."""

    def __init__(self, html: str | Path) -> None:
        super().__init__(convert_charrefs=True)
        self.html = html.read_text(encoding="utf-8") if isinstance(html, Path) else html
        self.tags: list[tuple[str, dict]] = []
        self.text = ""
        self.texts: dict[str, list[str]] = {}
        self.open: list[str] = []
        self.feed(self.html)
        self.texts = {tag: [text.strip() for text in texts] for tag, texts in self.texts.items()}

    def values(self, attribute: str, tag: str | None = None) -> list[str]:
        """Of an attribute, of one kind of tag or of all."""
        return [values[attribute] for name, values in self.tags if tag in (None, name) and attribute in values]

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self.texts.setdefault(tag, []).append("")
        self.open.append(tag)

    def handle_endtag(self, tag):
        while tag in self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        if "style" in self.open:
            return
        self.text += data.replace("\xa0", " ")
        for tag in set(self.open):
            self.texts[tag][-1] += data.replace("\xa0", " ")
