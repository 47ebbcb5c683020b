"""A gallery as a browser reads it."""

from html.parser import HTMLParser


class Page(HTMLParser):
    """The tags, the addresses and the text by tag of a page."""

    def __init__(self, html: str) -> None:
        super().__init__(convert_charrefs=True)
        self.tags: list[str] = []
        self.sources: list[str] = []
        self.alts: list[str] = []
        self.text: dict[str, list[str]] = {}
        self.feed(html)
        self.text = {tag: [text.strip() for text in texts] for tag, texts in self.text.items()}

    def handle_starttag(self, tag, attributes):
        self.tags.append(tag)
        self.text.setdefault(tag, []).append("")
        values = dict(attributes)
        self.sources += [values["src"]] if "src" in values else []
        self.alts += [values["alt"]] if "alt" in values else []

    def handle_data(self, data):
        if self.tags:
            self.text[self.tags[-1]][-1] += data
