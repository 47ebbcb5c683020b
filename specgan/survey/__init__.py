"""What recordings hold (lengths, levels, band, silence, copies), and which spectrogram preset keeps it.

May import: command_line, audio, spectrogram, data, pictures.
"""
