"""How good generated sounds are: the judge, the metrics, the report.

May import: audio, spectrogram, models, data, pictures.
"""
