"""A checkpoint -> one file that draws its sounds without specgan: an ONNX model, or a page for a browser.

May import: command_line, spectrogram, vocoders, models, generation, pictures.
"""
