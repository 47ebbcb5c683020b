"""Names that a careless program loses, mixes up, or takes for something other than a name."""

import os
import sys

# fmt: off
# Of a file, without its suffix, or of a folder.
ODD_NAMES = [
    "two words", " spaced ", "Schlägel é", "🥁", "grüße ♫", "-rf", "-", "~", "$HOME", "%s", "100%", "50%20", "C#4",
    "#1", "what?", "a:b", "a;b", "a,b", "a=b", "=1+1", "a\\b", "\\", "(a)", "[a]", "{title}", "'", 'say "hi"',
    "it's <b>bold & more",
    "<img src=x onerror=alert(1)>", "two\nlines", "a\rb", "a\r\nb", "a\tb", "\u2028x\x85",
    "007", "1", "1.0", "1e5", "nan", "NaN", "NA", "None", "null", "true", "no",
    *([os.fsdecode(b"caf\xe9")] if sys.platform == "linux" else []),  # not UTF-8; other systems have no such names
]
# Files that are different, with names that become one where a folder or a suffix is dropped, where case or the form of
# an accent does not count, where a character is replaced, or where a long name is cut.
ALIKE_FILES = [
    "kit1/kick/a.wav", "kit2/kick/a.wav", "kick/A.wav", "Kick/a.wav", "kick/a.flac", "kick/a.FLAC",
    "kick/a:b.wav", "kick/a?b.wav", "a:b/x.wav", "a?b/x.wav",
    "kick/caf\u00e9.wav", "kick/cafe\u0301.wav", "caf\u00e9/x.wav", "cafe\u0301/x.wav",
    *("x" * 253 + "/" + "x" * 249 + f"{end}.wav" for end in "ab"),  # a file system takes 255 bytes
    *("🥁" * 63 + "/" + "🥁" * 62 + f"{end}.wav" for end in "ab"),
]
# Of a class or a song, as a checkpoint or a picture from someone else may hold it.
HOSTILE_NAMES = [
    "../../evil", "..", ".", "a/../../b", "./", "/", "/etc/x", "a//b", "x\0y", "con\n", "\ud800",
    "e" * 300, "é" * 300, "\ud800" * 300, "a/b", "a_b", "A_B", '"onload="', "javascript:alert(1)",
]
# fmt: on
