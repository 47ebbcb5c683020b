"use strict";
// Levels -> sound, as specgan/vocoders/griffin_lim.py with start=steady: mel inversion, then the fast Griffin-Lim
// algorithm. Power is an array of nFrames rows. `inversion` holds the filters, [first bin, weights] of each band.

const HANN_SPREAD = 0.25645; // as in specgan/vocoders/first_phase.py
const [TONE, NOISE] = [0.2, 0.5];

/** The search for the power of FFT bins that gives one power of mel bands; specgan/vocoders/mel_inversion.py. */
class BinSearch {
  constructor(filters, melPower, nFrames, nBins) {
    Object.assign(this, { filters, melPower, nFrames, nBins });
    this.ofBin = new Float64Array(nBins);
    this.ofBand = filters.map(([first, weights]) => {
      weights.forEach((weight, i) => (this.ofBin[first + i] += weight));
      return weights.reduce((sum, weight) => sum + weight, 0);
    });
    this.ofBin = this.ofBin.map((sum) => Math.max(sum, 1e-8));
    this.share = new Float64Array(nBins);
  }

  even() {
    const power = new Float64Array(this.nFrames * this.nBins).fill(1);
    for (let t = 0; t < this.nFrames; t++) this.multiply(power, t, (band) => this.ofBand[band]);
    return power;
  }

  improve(power) {
    for (let t = 0; t < this.nFrames; t++) {
      const row = t * this.nBins;
      this.multiply(power, t, (band, first, weights) => {
        let found = 0;
        for (let i = 0; i < weights.length; i++) found += weights[i] * power[row + first + i];
        return Math.max(found, 1e-20);
      });
    }
  }

  /** Multiplies the bins of a frame by the share that their bands lack of what was found. */
  multiply(power, t, foundOf) {
    const { filters, melPower, share, nBins } = this;
    share.fill(0);
    for (let band = 0; band < filters.length; band++) {
      const [first, weights] = filters[band];
      const lack = melPower[t * filters.length + band] / foundOf(band, first, weights);
      for (let i = 0; i < weights.length; i++) share[first + i] += weights[i] * lack;
    }
    for (let k = 0; k < nBins; k++) power[t * nBins + k] *= share[k] / this.ofBin[k];
  }
}

/** Phases of steady tones in turns, random in noise, for nFrames rows of power. */
function steadyTurns(power, nFrames, p, seed) {
  const { n_fft: nFft, hop_length: hop, win_length: length } = p;
  const nBins = nFft / 2 + 1;
  const random = uniformNoise(nFrames * nBins, seed);
  const reach = Math.floor((4 * nFft) / length);
  const loudest = power.reduce((most, value) => Math.max(most, value), 0);
  const log = power.map((value) => Math.log(value + 1e-10 * loudest + 1e-30) / 2);
  const perBin = (nFft / length) ** 2 / (2 * Math.PI * HANN_SPREAD);
  const beside = (t, k) =>
    k === 0 || k === nBins - 1 ? 0 : ((log[t * nBins + k + 1] - log[t * nBins + k - 1]) / 2) * perBin;
  const turns = new Float64Array(nFrames * nBins);
  for (let k = 0; k < nBins; k++) {
    let [sum, moved] = [0, 0];
    for (let t = 0; t < nFrames; t++) {
      const at = t * nBins + k;
      if (t === 0) sum += random[at];
      else {
        let [highest, mean] = [0, 0];
        const [from, to] = [Math.max(0, k - reach), Math.min(nBins - 1, k + reach)];
        for (let i = from; i <= to; i++) {
          highest = Math.max(highest, power[t * nBins + i]);
          mean += power[t * nBins + i] / (to - from + 1);
        }
        const noisy = (mean / Math.max(highest, 1e-30) - TONE) / (NOISE - TONE);
        sum += (random[at] - 0.5) * Math.min(Math.max(noisy, 0), 1);
        moved += ((beside(t, k) + beside(t - 1, k)) / 2) * hop;
      }
      turns[at] = sum + (moved + ((t * hop * k) % nFft)) / nFft;
    }
  }
  return turns;
}

/** Gains that fade a sound in and out; specgan/vocoders/vocoder.py. */
function edgeFade(nSamples, sampleRate) {
  const gain = new Float64Array(nSamples).fill(1);
  const [nIn, nOut] = [0.0005, 0.005].map((s) => Math.min(Math.round(s * sampleRate), Math.floor(nSamples / 4)));
  for (let i = 0; i < nIn; i++) gain[i] = Math.sin((Math.PI / 2) * (i / nIn)) ** 2;
  for (let i = 0; i < nOut; i++) gain[nSamples - nOut + i] = Math.cos((Math.PI / 2) * ((i + 1) / nOut)) ** 2;
  return gain;
}

/** The fast Griffin-Lim algorithm, from a spectrum towards power. Perraudin, Balazs, Søndergaard, WASPAA 2013. */
function search(spectrum, power, frames, { n_iter: nIter, momentum }, bins) {
  const inertia = momentum / (1 + momentum);
  let previous = frames.spectrum();
  for (let iteration = 0; iteration < nIter; iteration++) {
    const found = frames.analyse(frames.synthesise(spectrum));
    if (bins) {
      for (let i = 0; i < power.length; i++) power[i] = (found.real[i] ** 2 + found.imag[i] ** 2 + power[i]) / 2;
      bins.improve(power);
      bins.improve(power);
    }
    for (let i = 0; i < found.real.length; i++) {
      let [real, imag, gain] = [found.real[i], found.imag[i], 1];
      if (i < power.length) {
        real -= inertia * previous.real[i];
        imag -= inertia * previous.imag[i];
        gain = Math.sqrt(power[i] / Math.max(real * real + imag * imag, 1e-32));
      }
      spectrum.real[i] = real * gain;
      spectrum.imag[i] = imag * gain;
    }
    previous = found;
  }
  return frames.synthesise(spectrum).subarray(frames.start, frames.stop);
}

/** The power of FFT bins, nFrames rows, and what the search aims at, of one channel's levels (nBands rows). */
function binPower(levels, about) {
  const { spectrogram: p, griffin } = about;
  const [nFrames, nBins, nBands] = [p.n_frames, p.n_fft / 2 + 1, levels.length / p.n_frames];
  const toPower = (level) =>
    p.level === "log1p" ? Math.max(Math.expm1(level), 0) : griffin.full_scale * Math.max(10 ** (level / 10) - griffin.floor, 0);
  const power = new Float64Array(nFrames * nBands);
  for (let band = 0; band < nBands; band++) {
    for (let t = 0; t < nFrames; t++) power[t * nBands + band] = toPower(levels[band * nFrames + t]);
  }
  if (griffin.filters) {
    const bins = new BinSearch(griffin.filters, power, nFrames, nBins);
    const inverted = bins.even();
    for (let i = 0; i < about.vocoder.n_inversion_iter; i++) bins.improve(inverted);
    return [inverted, bins];
  }
  const padded = new Float64Array(nFrames * nBins);
  for (let t = 0; t < nFrames; t++) padded.set(power.subarray(t * nBands, (t + 1) * nBands), t * nBins + griffin.first_bin);
  return [padded, null];
}

/** Sounds, one of each channel, which all start from the phase of their mean power. */
function griffinLim(channels, about, seed) {
  const p = about.spectrogram;
  const powers = channels.map((levels) => binPower(levels, about));
  const mean = powers[0][0].map((_, i) => powers.reduce((sum, [power]) => sum + power[i], 0) / powers.length);
  const turns = steadyTurns(mean, p.n_frames, p, seed);
  const frames = new Frames(p.n_frames, p);
  edgeFade(frames.stop - frames.start, p.sample_rate).forEach((gain, i) => (frames.scale[frames.start + i] *= gain));
  return powers.map(([power, bins]) => {
    const spectrum = frames.spectrum();
    for (let i = 0; i < power.length; i++) {
      spectrum.real[i] = Math.sqrt(power[i]) * Math.cos(2 * Math.PI * turns[i]);
      spectrum.imag[i] = Math.sqrt(power[i]) * Math.sin(2 * Math.PI * turns[i]);
    }
    return Float32Array.from(search(spectrum, power, frames, about.vocoder, bins));
  });
}
