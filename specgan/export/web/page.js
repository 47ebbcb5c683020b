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
  const session = await runtime.InferenceSession.create(new Uint8Array(model), { executionProviders: ["wasm"] });
  return { runtime, session };
})();

/** The parts of a tensor (1, channels, ...), one of each channel. */
function channelsOf({ data, dims }) {
  const size = data.length / dims[1];
  return Array.from({ length: dims[1] }, (_, i) => data.subarray(i * size, (i + 1) * size));
}

/** Levels and sound of a class, by its index, and a seed: those of generate.py, to a float's digits. */
async function drawSound(label, seed) {
  const { runtime, session } = await ready;
  const { spectrogram: p, latent_dim: latentDim } = about;
  const tensor = (type, data, ...dims) => new runtime.Tensor(type, data, dims);
  const inputs = { z: tensor("float32", normalNoise(latentDim, seed), 1, latentDim), label: tensor("int64", BigInt64Array.of(BigInt(label)), 1) };
  if (session.inputNames.includes("noise")) {
    const size = [p.n_frames, Math.floor(p.n_fft / 2) + 1];
    inputs.noise = tensor("float32", uniformNoise(size[0] * size[1], seed), 1, ...size);
  }
  const { spectrogram, waveform } = await session.run(inputs);
  const levels = channelsOf(spectrogram);
  return { levels, sound: waveform ? channelsOf(waveform) : griffinLim(levels, about, seed) };
}

const form = element("make");
const fileName = (words) => words.replace(/[^\p{L}\p{N}.+-]+/gu, "_");
let isBusy = false;

/** Draws the chosen class with the seed of the form, shows it and plays it. */
async function make() {
  if (isBusy) return;
  isBusy = true;
  element("error").textContent = "";
  const label = about.class_names.findIndex((_, i) => element(`class-${i}`).getAttribute("aria-pressed") === "true");
  const seed = form.elements.seed.valueAsNumber;
  const caption = `${about.class_names[label]}, seed ${seed}`;
  element("status").textContent = `Drawing ${caption} …`;
  await new Promise((done) => setTimeout(done)); // so that this is shown
  try {
    const { levels, sound } = await drawSound(label, seed);
    show(levels, trimmed(sound, about.sample_rate), caption);
    element("status").textContent = `${caption}.`;
    element("player").play().catch(() => {}); // a browser may want a click on the player itself
  } catch (err) {
    element("status").textContent = "";
    element("error").textContent = `It cannot be drawn: ${err.message}`;
  } finally {
    isBusy = false;
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

function choose(index) {
  about.class_names.forEach((_, i) => element(`class-${i}`).setAttribute("aria-pressed", i === index));
  make();
}

about.class_names.forEach((_, i) => element(`class-${i}`).addEventListener("click", () => choose(i)));
form.addEventListener("submit", (event) => {
  event.preventDefault();
  make();
});
element("new").addEventListener("click", () => {
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
