"""What preprocess.py runs, one task a file.

May import: command_line, audio, spectrogram, vocoders, batch, captions, codec, sets, cutting, data, clips, pictures, evaluation, survey.
"""  # noqa: E501
