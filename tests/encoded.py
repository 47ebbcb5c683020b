"""Sounds as files of the formats that FFmpeg writes."""

import io

import av
import numpy as np

SINE = 0.2 * np.sin(np.arange(8192) / 7)[:, None]


def by_ffmpeg(container: str, codec: str, samples: np.ndarray = SINE, *, rate: int = 16000, layout="mono") -> bytes:
    """A file of samples (n_samples, n_channels)."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as out:
        stream = out.add_stream(codec, rate=rate, layout=layout)
        for start in range(0, len(samples), 1024):
            packed = np.ascontiguousarray(samples[start : start + 1024].reshape(1, -1), dtype=np.float32)
            frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
            frame.sample_rate, frame.pts = rate, start
            out.mux(stream.encode(frame))
        out.mux(stream.encode(None))
    return buffer.getvalue()
