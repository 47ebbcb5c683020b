"use strict";
// The page draws sounds by itself: the model runs in WebAssembly, and nothing is fetched from anywhere.

const element = (id) => document.getElementById(id);
const about = JSON.parse(element("about-model").textContent);

/** What a script element of the page holds, base64 of gzip. */
async function unpacked(id) {
  const letters = atob(element(id).textContent.trim());
  const bytes = new Uint8Array(letters.length);
  for (let i = 0; i < bytes.length; i++) bytes[i] = letters.charCodeAt(i);
  element(id).remove();
  return new Response(new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"))).arrayBuffer();
}

/** ONNX Runtime and the model, ready to draw. */
const ready = (async () => {
  const [code, wasmBinary, model] = await Promise.all(["runtime", "wasm", "model"].map(unpacked));
  const runtime = await import(URL.createObjectURL(new Blob([code], { type: "text/javascript" })));
  Object.assign(runtime.env.wasm, { numThreads: 1, wasmBinary });
  const session = await runtime.InferenceSession.create(new Uint8Array(model), {
    executionProviders: ["wasm"],
    graphOptimizationLevel: "disabled", // it takes many times as long as drawing a sound
  });
  return { runtime, session };
})();

/** The parts of a tensor (1, channels, ...), one of each channel. */
function channelsOf({ data, dims }) {
  const size = data.length / dims[1];
  return Array.from({ length: dims[1] }, (_, i) => data.subarray(i * size, (i + 1) * size));
}

/** From one vector to another along an arc, as specgan.models.generators.slerp. */
function slerp(start, end, position) {
  const dot = (a, b) => a.reduce((sum, value, i) => sum + value * b[i], 0);
  const cosine = dot(start, end) / Math.sqrt(dot(start, start) * dot(end, end));
  const angle = Math.acos(Math.min(Math.max(cosine, -1), 1));
  const isLine = Math.sin(angle) < 1e-6;
  const [near, far] = [1 - position, position].map((share) => (isLine ? share : Math.sin(angle * share) / Math.sin(angle)));
  return start.map((value, i) => near * value + far * end[i]);
}

/**
 * Levels and sound of a class, by its index, and a seed: those of generate.py, to a float's digits. With `other`, another
 * one, and a position from 0 to 1: what is on the way there, as specgan.latent.LatentSpace.morph.
 */
async function drawSound(one, other = one, position = 0) {
  const { runtime, session } = await ready;
  const { spectrogram: p, latent_dim: latentDim, embeddings } = about;
  const tensor = (data, ...dims) => new runtime.Tensor(data instanceof BigInt64Array ? "int64" : "float32", data, [1, ...dims]);
  const [start, end] = [one, other].map(({ seed }) => normalNoise(latentDim, seed));
  const inputs = { z: tensor(position === 0 ? start : position === 1 ? end : slerp(start, end, position), latentDim) };
  if (embeddings) {
    const [from, to] = [one, other].map(({ label }) => Float32Array.from(embeddings[label]));
    inputs.embedding = tensor(from.map((value, i) => (1 - position) * value + position * to[i]), from.length);
  } else inputs.label = tensor(BigInt64Array.of(BigInt(one.label)));
  const { seed } = position < 0.5 ? one : other;
  if (session.inputNames.includes("noise")) {
    const size = [p.n_frames, Math.floor(p.n_fft / 2) + 1];
    inputs.noise = tensor(uniformNoise(size[0] * size[1], seed), ...size);
  }
  const { spectrogram, waveform } = await session.run(inputs);
  const levels = channelsOf(spectrogram);
  return { levels, sound: waveform ? channelsOf(waveform) : griffinLim(levels, about, seed) };
}

const form = element("make");
const fileName = (words) => words.replace(/[^\p{L}\p{N}.+-]+/gu, "_");
let [isBusy, isWanted] = [false, false];

/** What the form says: the two ends, and the position between them. */
function asked() {
  const { seed, other, otherSeed, position } = form.elements;
  const label = about.class_names.findIndex((_, i) => element(`class-${i}`).getAttribute("aria-pressed") === "true");
  const one = { label, seed: seed.valueAsNumber };
  return position ? [one, { label: Number(other.value), seed: otherSeed.valueAsNumber }, position.valueAsNumber / 100] : [one, one, 0];
}

const nameOf = ({ label, seed }) => `${about.class_names[label]}, seed ${seed}`;

/** Draws what the form says, and if that changes meanwhile, once more. */
async function make() {
  if (!form.reportValidity()) return;
  isWanted = true;
  if (isBusy) return;
  isBusy = true;
  while (isWanted) {
    isWanted = false;
    await makeOnce();
  }
  isBusy = false;
}

async function makeOnce() {
  element("error").textContent = "";
  const [one, other, position] = asked();
  const between = `${Math.round(100 * position)} % of the way from ${nameOf(one)} to ${nameOf(other)}`;
  const caption = position === 0 ? nameOf(one) : position === 1 ? nameOf(other) : between;
  element("status").textContent = `Drawing ${caption} …`;
  await new Promise((done) => setTimeout(done)); // so that this is shown
  try {
    const { levels, sound } = await drawSound(one, other, position);
    show(levels, trimmed(sound, about.sample_rate), caption);
    element("status").textContent = `${caption}.`;
    element("player").play().catch(() => {}); // a browser may want a click on the player itself
  } catch (err) {
    element("status").textContent = "";
    element("error").textContent = `It cannot be drawn: ${err.message}`;
  }
}

function show(levels, sound, caption) {
  const [player, link, picture, wave] = ["player", "download", "spectrogram", "waveform"].map(element);
  URL.revokeObjectURL(player.src);
  player.src = link.href = URL.createObjectURL(wavOf(sound, about.sample_rate));
  link.download = `${fileName(caption)}.wav`;
  const names = [[link, `Download WAV: ${caption}`], [player, caption], [picture, `Spectrogram: ${caption}`], [wave, `Waveform: ${caption}`]];
  names.forEach(([part, name]) => part.setAttribute("aria-label", name));
  element("caption").textContent = `${caption}, ${(sound[0].length / about.sample_rate).toFixed(2)} s`;
  drawSpectrogram(picture, levels, about.spectrogram.n_frames, about.level_range);
  drawWaveform(wave, sound, getComputedStyle(document.documentElement).getPropertyValue("--accent"));
  element("sound").hidden = false;
}

/** 0 is the sound itself, 100 the other one. */
function setPosition(percent) {
  if (!form.elements.position) return;
  form.elements.position.value = percent;
  element("way").querySelector("output").textContent = `${percent} %`;
}

function choose(index) {
  setPosition(0);
  about.class_names.forEach((_, i) => element(`class-${i}`).setAttribute("aria-pressed", i === index));
  make();
}

about.class_names.forEach((_, i) => element(`class-${i}`).addEventListener("click", () => choose(i)));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  make();
});
form.elements.position?.addEventListener("input", (event) => setPosition(event.target.value));
form.elements.position?.addEventListener("change", make);
element("new").addEventListener("click", () => {
  setPosition(0);
  form.elements.seed.value = Math.floor(Math.random() * 1e6);
  make();
});
element("play").addEventListener("click", () => {
  const player = element("player");
  player.currentTime = 0;
  player.play();
});
ready.then(
  () => (element("status").textContent = "Ready: choose a class."),
  (err) => {
    element("status").textContent = "";
    element("error").textContent = `This browser cannot run the model: ${err.message}`;
  },
);
