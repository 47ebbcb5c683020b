"""How good generated sounds are: the judge, the metrics, the report, and what listeners say.

May import: audio, spectrogram, models, data, pictures.
"""
