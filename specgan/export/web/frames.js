"use strict";
// The STFT of sounds with silence around them, and its least-squares inverse, as specgan/vocoders/frames.py.

/** The discrete Fourier transform of n complex values, n a power of two. Cooley, Tukey 1965. */
class Fourier {
  constructor(n) {
    this.n = n;
    const half = n / 2;
    this.cos = Float64Array.from({ length: half }, (_, i) => Math.cos((2 * Math.PI * i) / n));
    this.sin = Float64Array.from({ length: half }, (_, i) => -Math.sin((2 * Math.PI * i) / n));
    this.reversed = new Uint32Array(n);
    for (let i = 1; i < n; i++) this.reversed[i] = (this.reversed[i >> 1] >> 1) | (i & 1 ? half : 0);
  }

  /** In place. With the two parts exchanged it is the inverse, times n. */
  transform(real, imag) {
    const { n, cos, sin, reversed } = this;
    for (let i = 0; i < n; i++) {
      const j = reversed[i];
      if (i < j) {
        [real[i], real[j]] = [real[j], real[i]];
        [imag[i], imag[j]] = [imag[j], imag[i]];
      }
    }
    for (let size = 1, step = n >> 1; size < n; size *= 2, step >>= 1) {
      for (let start = 0; start < n; start += 2 * size) {
        for (let k = 0, at = 0; k < size; k++, at += step) {
          const i = start + k;
          const j = i + size;
          const r = real[j] * cos[at] - imag[j] * sin[at];
          const m = real[j] * sin[at] + imag[j] * cos[at];
          real[j] = real[i] - r;
          imag[j] = imag[i] - m;
          real[i] += r;
          imag[i] += m;
        }
      }
    }
  }
}

/** Spectra are { real, imag }, each nFrames + 1 rows of nFft / 2 + 1 bins; the last frame is centred behind the end. */
class Frames {
  constructor(nFrames, { n_fft: nFft, hop_length: hop, win_length: length }) {
    Object.assign(this, { nFft, hop, length, n: nFrames + 1, nBins: nFft / 2 + 1 });
    this.left = Math.floor((nFft - length) / 2);
    this.start = nFft / 2 - this.left;
    this.stop = this.start + nFrames * hop;
    this.window = Float64Array.from({ length }, (_, i) => 0.5 - 0.5 * Math.cos((2 * Math.PI * i) / length));
    this.nSamples = (this.n - 1 + Math.ceil(length / hop)) * hop;
    const overlap = new Float64Array(this.nSamples);
    for (let t = 0; t < this.n; t++) {
      for (let i = 0; i < length; i++) overlap[t * hop + i] += this.window[i] ** 2;
    }
    this.scale = overlap.map((sum, i) => (sum > 1e-8 && i >= this.start && i < this.stop ? 1 / sum : 0));
    this.fourier = new Fourier(nFft);
    this.real = new Float64Array(nFft);
    this.imag = new Float64Array(nFft);
  }

  spectrum() {
    return { real: new Float64Array(this.n * this.nBins), imag: new Float64Array(this.n * this.nBins) };
  }

  /** A spectrum -> samples, silent but between start and stop. Two frames at a time, as real and imaginary part. */
  synthesise(spectrum) {
    const { nFft, nBins, real, imag, window, left, length, hop, n } = this;
    const samples = new Float64Array(this.nSamples);
    const nyquist = nBins - 1;
    for (let t = 0; t < n; t += 2) {
      const a = t * nBins;
      const b = t + 1 < n ? a + nBins : -1;
      for (let k = 0; k < nBins; k++) {
        const inner = k > 0 && k < nyquist;
        const [ar, ai] = [spectrum.real[a + k], inner ? spectrum.imag[a + k] : 0];
        const [br, bi] = b < 0 ? [0, 0] : [spectrum.real[b + k], inner ? spectrum.imag[b + k] : 0];
        real[k] = ar - bi;
        imag[k] = ai + br;
        if (inner) {
          real[nFft - k] = ar + bi;
          imag[nFft - k] = br - ai;
        }
      }
      this.fourier.transform(imag, real);
      for (let i = 0; i < length; i++) {
        samples[t * hop + i] += (real[left + i] * window[i]) / nFft;
        if (b >= 0) samples[(t + 1) * hop + i] += (imag[left + i] * window[i]) / nFft;
      }
    }
    for (let i = 0; i < samples.length; i++) samples[i] *= this.scale[i];
    return samples;
  }

  /** Samples as of synthesise -> their spectrum. */
  analyse(samples) {
    const { nFft, nBins, real, imag, window, left, length, hop, n } = this;
    const spectrum = this.spectrum();
    for (let t = 0; t < n; t += 2) {
      real.fill(0);
      imag.fill(0);
      for (let i = 0; i < length; i++) {
        real[left + i] = samples[t * hop + i] * window[i];
        if (t + 1 < n) imag[left + i] = samples[(t + 1) * hop + i] * window[i];
      }
      this.fourier.transform(real, imag);
      for (let k = 0; k < nBins; k++) {
        const mirror = (nFft - k) % nFft;
        const a = t * nBins + k;
        spectrum.real[a] = (real[k] + real[mirror]) / 2;
        spectrum.imag[a] = (imag[k] - imag[mirror]) / 2;
        if (t + 1 < n) {
          spectrum.real[a + nBins] = (imag[k] + imag[mirror]) / 2;
          spectrum.imag[a + nBins] = (real[mirror] - real[k]) / 2;
        }
      }
    }
    return spectrum;
  }
}
