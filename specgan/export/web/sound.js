"use strict";
// Sounds (an array of Float32Array, one of each channel) as files and as pictures.

const [TRIM_DB, FADE_S, SHORTEST_S, BLOCK_S] = [-50, 0.02, 0.05, 0.01]; // as of generate.py

/** Cuts off what follows the end of a sound, as specgan/audio/wav.py; all channels end together. */
function trimmed(channels, sampleRate) {
  const nSamples = channels[0].length;
  const nBlock = Math.max(1, Math.round(BLOCK_S * sampleRate));
  const power = Float64Array.from({ length: Math.ceil(nSamples / nBlock) }, (_, block) =>
    Math.max(...channels.map((x) => x.subarray(block * nBlock, (block + 1) * nBlock).reduce((sum, v) => sum + v * v, 0))),
  );
  const least = Math.max(...power) * 10 ** (TRIM_DB / 10);
  if (least === 0) return channels;
  const nFade = Math.round(FADE_S * sampleRate);
  const end = (power.findLastIndex((value) => value >= least) + 1) * nBlock;
  const nKept = Math.max(end + nFade, Math.round(SHORTEST_S * sampleRate));
  if (nKept >= nSamples) return channels;
  const gain = (i) => (i < nKept - nFade ? 1 : Math.cos((Math.PI / 2) * ((i - nKept + nFade + 1) / nFade)) ** 2);
  return channels.map((x) => x.slice(0, nKept).map((value, i) => value * gain(i)));
}

/** A WAV of 16 bits; what is beyond full scale is made quieter as a whole. */
function wavOf(channels, sampleRate) {
  const loudest = channels.reduce((most, x) => x.reduce((peak, value) => Math.max(peak, Math.abs(value)), most), 1);
  const [n, nSamples] = [channels.length, channels[0].length];
  const bytes = new DataView(new ArrayBuffer(44 + 2 * n * nSamples));
  const text = (at, letters) => [...letters].forEach((letter, i) => bytes.setUint8(at + i, letter.charCodeAt(0)));
  text(0, "RIFF");
  bytes.setUint32(4, bytes.byteLength - 8, true);
  text(8, "WAVEfmt ");
  [[16, 16], [24, sampleRate], [28, 2 * n * sampleRate], [40, 2 * n * nSamples]].forEach(([at, x]) => bytes.setUint32(at, x, true));
  [[20, 1], [22, n], [32, 2 * n], [34, 16]].forEach(([at, x]) => bytes.setUint16(at, x, true));
  text(36, "data");
  channels.forEach((x, channel) =>
    x.forEach((value, i) => bytes.setInt16(44 + 2 * (i * n + channel), Math.round((value / loudest) * 32767), true)),
  );
  return new Blob([bytes], { type: "audio/wav" });
}

/** Draws the sound's peaks over time, all channels in one, as wide as the canvas. */
function drawWaveform(canvas, channels, color) {
  const { width, height } = canvas;
  const context = canvas.getContext("2d");
  context.clearRect(0, 0, width, height);
  context.fillStyle = color;
  const loudest = Math.max(1e-9, ...channels.map((x) => x.reduce((peak, value) => Math.max(peak, Math.abs(value)), 0)));
  for (let column = 0; column < width; column++) {
    let [low, high] = [0, 0];
    for (const x of channels) {
      const from = Math.floor((column * x.length) / width);
      for (let i = from; i < Math.max(from + 1, ((column + 1) * x.length) / width); i++) {
        low = Math.min(low, x[i]);
        high = Math.max(high, x[i]);
      }
    }
    const top = (1 - high / loudest) * (height / 2);
    context.fillRect(column, top, 1, Math.max(1, ((high - low) / loudest) * (height / 2)));
  }
}

// magma of matplotlib, at 0, 1/8, ... 1
const MAGMA = [[0, 0, 4], [29, 17, 71], [81, 18, 124], [131, 38, 129], [183, 55, 121], [230, 81, 100], [252, 137, 97], [254, 198, 139], [252, 253, 191]];

/** Draws levels, low frequencies at the bottom, one pixel a value; channels one below the other. */
function drawSpectrogram(canvas, channels, nFrames, { low, high }) {
  const nBands = channels[0].length / nFrames;
  Object.assign(canvas, { width: nFrames, height: nBands * channels.length });
  const context = canvas.getContext("2d");
  const picture = context.createImageData(canvas.width, canvas.height);
  channels.forEach((levels, channel) => {
    levels.forEach((level, i) => {
      const [band, t] = [Math.floor(i / nFrames), i % nFrames];
      const place = Math.min(Math.max((level - low) / (high - low), 0), 1) * (MAGMA.length - 1);
      const [from, to] = [MAGMA[Math.floor(place)], MAGMA[Math.ceil(place)]];
      const at = 4 * ((channel * nBands + nBands - 1 - band) * nFrames + t);
      for (let c = 0; c < 3; c++) picture.data[at + c] = from[c] + (to[c] - from[c]) * (place % 1);
      picture.data[at + 3] = 255;
    });
  });
  context.putImageData(picture, 0, 0);
}
