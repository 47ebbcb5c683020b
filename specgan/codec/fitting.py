"""Pictures as other programs left them -> what `decode_spectrum` takes."""

import numpy as np

from specgan.codec.coding import CodecError, CodecParams


def fit_picture(
    picture: np.ndarray,
    params: CodecParams | None,
    *,
    phase_encoding: str = CodecParams.phase_encoding,
    range_db: float = CodecParams.range_db,
    griffin_lim: bool = False,
) -> tuple[np.ndarray, CodecParams, list[str]]:
    """Converts a picture, as `from_png` returns it, to what `decode_spectrum` takes. It is never resized.

    Args:
        picture: (height, width) or (height, width, channels) uint8 or uint16.
        params: from the picture's text; None for a picture without text, whose size and bit depth are its own.
        phase_encoding, range_db: of a picture without text.
        griffin_lim: whether Griffin-Lim will replace the phase, so that a grey picture is enough: it becomes the
            magnitude, beside a random phase.
    Returns:
        The picture (size, size, 3), its settings, and a remark on each change.
    Raises:
        CodecError: a picture that was resized, is not square or of an odd size; a grey one without `griffin_lim`; one
            of 16 bits whose text says 8.
        ValueError: an impossible `phase_encoding` or `range_db`.
    """
    _check_size(picture, params)
    remarks = []
    if picture.ndim == 3 and picture.shape[2] == 4:
        picture = picture[..., :3]
        remarks.append("alpha is left out")
    if params is None:
        params = CodecParams(len(picture), 8 * picture.itemsize, phase_encoding, range_db)
    elif 8 * picture.itemsize != params.bit_depth:
        picture, remark = _to_depth(picture, params)
        remarks.append(remark)
    # OpenCV makes three equal channels of grey with alpha.
    if picture.ndim == 2 or (picture == picture[..., :1]).all():
        if not griffin_lim:
            raise CodecError("grey: it has no phase; phase=griffin_lim looks for one")
        picture = _with_random_phase(picture if picture.ndim == 2 else picture[..., 0], params)
        remarks.append("grey: it has the magnitude only, Griffin-Lim starts from a random phase")
    return picture, params, remarks


def _check_size(picture: np.ndarray, params: CodecParams | None) -> None:
    height, width = picture.shape[:2]
    if params is not None and (height, width) != (params.size, params.size):
        raise CodecError(
            f"has {width} x {height} pixels, its text says {params.size} x {params.size}; pictures must not be resized "
            "or cropped: encode it again"
        )
    if height != width or height % 2 or height < 4:
        raise CodecError(
            f"has {width} x {height} pixels; a picture of sound is square, of an even size of at least 4, and must not "
            "be resized or cropped"
        )


def _to_depth(picture: np.ndarray, params: CodecParams) -> tuple[np.ndarray, str]:
    """Converts a picture to the bit depth of its text, from which it differs. Returns it with a remark."""
    if params.bit_depth == 16:
        # The phase of an instantaneous frequency is a sum over the frames, and so is its rounding error.
        is_sum = params.phase_encoding == "instantaneous_frequency"
        rest = "magnitudes hold about 30 dB, the phase drifts" if is_sum else "holds about 30 dB only"
        return picture.astype(np.uint16) * 257, f"was reduced to 8 bits from the 16 of its text: {rest}"
    if (picture % 257).any():
        raise CodecError("has values of 16 bits, its text says 8; another program changed it, encode it again")
    return (picture // 257).astype(np.uint8), "was widened to 16 bits from the 8 of its text: converted back to 8"


def _with_random_phase(red: np.ndarray, params: CodecParams) -> np.ndarray:
    """(size, size) -> (size, size, 3). Griffin-Lim does worse from equal phases than from random ones."""
    phase = np.random.default_rng(0).integers(0, params.most, (*red.shape, 2), red.dtype, endpoint=True)
    phase[-1, :, 1] = (params.most + 1) // 2  # no Nyquist bin
    return np.concatenate([red[..., None], phase], axis=-1)
