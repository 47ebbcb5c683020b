"""What the first bytes of a file say: whether it is a sound, whatever its name is."""

HEAD_BYTES = 512  # that `is_sound` looks at

_STARTS = (
    b"fLaC",
    b"OggS",
    b"ID3",
    b".snd",
    b"caff",
    b"wvpk",
    b"MAC ",
    b"TTA1",
    b"MPCK",
    b"MP+",
    b"#!AMR",
    b"FLV\1",
    b"DSD ",
    b"FRM8",
    b".ra\xfd",
    b".RMF",
    b"NIST_1A",
    b"ajkg",
    b"2BIT",
    b" paf",
    b"fap ",
    b"PVF1",
    b"\x64\xa3\x01\x00",  # IRCAM, as the next three
    b"\x64\xa3\x02\x00",
    b"\x00\x01\xa3\x64",
    b"\x00\x02\xa3\x64",
    b"\x0b\x77",  # AC-3
    b"\x7f\xfe\x80\x01",  # DTS
    b"\x00\x00\x01\xba",  # MPEG program stream
    b"\x1aE\xdf\xa3",  # Matroska, WebM
    b"0&\xb2u\x8ef\xcf\x11",  # ASF: WMA, WMV
    b"riff.\x91\xcf\x11\xa5\xd6\x28\xdb",  # W64
    b"Creative Voice File",
)
_FORMS = {  # of the kinds that hold other things than sound too
    b"RIFF": (b"WAVE", b"AVI "),
    b"RIFX": (b"WAVE",),
    b"RF64": (b"WAVE",),
    b"BW64": (b"WAVE",),
    b"FORM": (b"AIFF", b"AIFC", b"8SVX", b"16SV"),
}
_PICTURES = (b"avif", b"avis", b"heic", b"heix", b"hevc", b"mif1", b"msf1", b"crx ")  # in the container of MP4
_TS_PACKET = 188  # bytes of a packet of an MPEG transport stream; each begins with G


def is_sound(head: bytes) -> bool:
    """Whether a file that begins with these bytes (HEAD_BYTES, or all it has) is of a kind that holds sound."""
    if head.startswith(_STARTS) or head[8:12] in _FORMS.get(head[:4], ()):
        return True
    if head[4:8] == b"ftyp":
        return head[8:12] not in _PICTURES
    if head[4:8] in (b"moov", b"mdat", b"wide"):  # older QuickTime
        return True
    return _is_mpeg_frame(head) or (len(head) > 2 * _TS_PACKET and set(head[::_TS_PACKET]) == {ord("G")})


def _is_mpeg_frame(head: bytes) -> bool:
    """Whether this is the header of an MP3, MP2 or AAC (ADTS) frame, and no text: a text may begin with FF FE."""
    if len(head) < 4 or head[0] != 0xFF:
        return False
    if head[1] in (0xF0, 0xF1, 0xF8, 0xF9):  # ADTS
        return head[2] >> 2 & 15 < 13
    is_layer_2_or_3 = head[1] & 0xE0 == 0xE0 and head[1] >> 3 & 3 != 1 and head[1] >> 1 & 3 in (1, 2)
    return is_layer_2_or_3 and head[2] >> 4 not in (0, 15) and head[2] >> 2 & 3 != 3
