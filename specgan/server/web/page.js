"use strict";
// The page of the service that served it; openapi.json says what it takes and answers.

const element = (selector, root = document) => root.querySelector(selector);
const [make, morph, file, own, vary, steer, kept] = ["make", "morph", "file", "own", "vary", "steer", "kept"].map((id) =>
  element(`#${id}`),
);

/** Returns the service's JSON. Throws an Error with its own words and the status of its answer. */
async function ask(path, options) {
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("No answer from the service. Is it still running, and the file not too large for it?");
  }
  const content = await answer.json().catch(() => ({})); // whatever stands between may answer with a page
  if (!answer.ok) {
    const words = content.message || `The service answered ${answer.status} ${answer.statusText}.`;
    throw Object.assign(new Error(words), { status: answer.status, code: content.error });
  }
  return content;
}

const post = (path, content) =>
  ask(path, { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(content) });

/** Runs what a section is for, once at a time: says so, then what `action` returns, or its error. */
async function work(section, doing, action) {
  const results = element(".results", section);
  if (results.ariaBusy === "true") return;
  const [button, status, error] = ["button", ".status", ".error"].map((selector) => element(selector, section));
  results.ariaBusy = "true";
  button?.setAttribute("aria-disabled", "true"); // a really disabled one would lose the keyboard's focus
  [status.textContent, error.textContent] = [doing, ""];
  try {
    status.textContent = await action(results);
  } catch (err) {
    [status.textContent, error.textContent] = ["", err.message];
  } finally {
    results.ariaBusy = "false";
    button?.removeAttribute("aria-disabled");
  }
}

/**
 * Makes the figure of a sound. Files of the service are gone after some minutes, which the figure then says.
 * With `sound.start`, what the service goes on from, it has the buttons to keep it and to go on.
 */
function newFigure(sound, caption, download) {
  const figure = element("#figure").content.cloneNode(true).firstElementChild;
  if (!sound.start) element(".doing", figure).remove();
  element("[name=keep]", figure)?.addEventListener("click", () => keep(figure));
  element("[name=go-on]", figure)?.addEventListener("click", () => goOnFrom(figure.sound.start, figure.caption));
  for (const part of figure.querySelectorAll("img, audio")) {
    part.addEventListener("error", () => {
      element(".error", figure).textContent = "No longer there: the service keeps files for some minutes. Make it again.";
    });
  }
  show(figure, sound, caption, download);
  return figure;
}

/** Puts a sound into a figure; `download` is the address, the name and the words of a link. */
function show(figure, sound, caption, [address, name, words]) {
  const [picture, player, text, link] = ["img", "audio", "span", "a"].map((part) => element(part, figure));
  Object.assign(picture, { src: sound.spectrogram_url, alt: `Spectrogram: ${caption}` });
  player.src = sound.audio_url;
  player.setAttribute("aria-label", caption);
  text.textContent = caption;
  Object.assign(link, { href: address, download: name, textContent: words, ariaLabel: `${words}: ${caption}` });
  for (const button of figure.querySelectorAll("button")) button.ariaLabel = `${button.textContent}: ${caption}`;
  Object.assign(figure, { sound, caption, file: name });
  element(".error", figure).textContent = "";
}

const wavOf = (sound, name) => [sound.audio_url, `${name}.wav`, "Download WAV"];
const valuesOf = (form) => Object.fromEntries(new FormData(form));
const withStart = (sound) => ({ ...sound, start: { sound: sound.sound } });
const fileName = (words) => words.replace(/[^\p{L}\p{N}.+-]+/gu, "_");
const soundsIn = (n) => `${n} ${n === 1 ? "sound" : "sounds"}`;

element("form", make).addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = valuesOf(event.target);
  work(make, `Making ${soundsIn(Number(wanted.n))} …`, async (results) => {
    const { sounds } = await post("api/generate", { class: wanted.class, seed: Number(wanted.seed), n: Number(wanted.n) });
    results.replaceChildren(
      ...sounds.map((sound) =>
        newFigure(
          { ...sound, start: { class: sound.class, seed: sound.seed } },
          `${sound.class}, seed ${sound.seed}`,
          wavOf(sound, `${sound.class}_${sound.seed}`),
        ),
      ),
    );
    return `${soundsIn(sounds.length)} of ${wanted.class}.`;
  });
});

element("form", morph).addEventListener("submit", (event) => {
  event.preventDefault();
  const wanted = valuesOf(event.target);
  const [[from, start], [to, end]] = ["from-", "to-"].map((which) => startOf(event.target, which));
  work(morph, "Making the sounds between …", async (results) => {
    const { sounds } = await post("api/morph", { from, to, n: Number(wanted.n) });
    const between = `from ${start} to ${end}`;
    const slider = element("#position");
    const place = () => {
      const sound = withStart(sounds[slider.valueAsNumber]);
      const percent = Math.round(sound.position * 100);
      slider.ariaValueText = `${percent} %`;
      const name = `${fileName(start)}_to_${fileName(end)}_${percent}`;
      return [sound, `${percent} % of the way ${between}`, wavOf(sound, name)];
    };
    slider.max = sounds.length - 1;
    slider.value = 0;
    const figure = newFigure(...place());
    slider.oninput = () => show(figure, ...place());
    slider.onchange = () => element("audio", figure).play().catch(() => {}); // its error is shown by the figure
    for (const sound of sounds) new Image().src = sound.spectrogram_url; // so that the slider moves without gaps
    results.replaceChildren(figure);
    slider.parentElement.hidden = false;
    return `${soundsIn(sounds.length)}. Move the slider to hear them.`;
  });
});

function draw(sound) {
  work(file, `Drawing ${sound.name} …`, async (results) => {
    const body = new FormData();
    body.append("audio_file", sound);
    const drawn = await ask("api/audio/generate-spectrogram", { method: "POST", body });
    const picture = [drawn.spectrogram_url, `${sound.name}.png`, "Download picture"];
    results.replaceChildren(newFigure(drawn, sound.name, picture));
    return drawn.message.replaceAll("audio_file", () => sound.name); // with warnings, if there are any
  });
}

for (const [section, action] of [[file, (sound) => draw(sound)], [own, (sound) => find(sound)]]) {
  const chooser = element("input", section);
  chooser.addEventListener("change", () => chooser.files.length && action(chooser.files[0]));
  chooser.addEventListener("click", () => (chooser.value = "")); // or the same file could not be chosen again
}

// Anywhere on the page: a drop beside the frame would make the browser leave it.
const isFile = (event) => event.dataTransfer.types.includes("Files");
addEventListener("dragover", (event) => {
  if (!isFile(event)) return;
  event.preventDefault();
  for (const frame of document.querySelectorAll(".drop")) frame.classList.add("over");
});
const leave = () => document.querySelectorAll(".drop").forEach((frame) => frame.classList.remove("over"));
addEventListener("dragleave", (event) => event.relatedTarget || leave());
addEventListener("drop", (event) => {
  if (!isFile(event)) return;
  event.preventDefault();
  leave();
  if (!event.dataTransfer.files.length) return;
  draw(event.dataTransfer.files[0]);
  if (!own.hidden) find(event.dataTransfer.files[0]);
});

// One sound at a time.
document.addEventListener("play", (event) => {
  for (const player of document.querySelectorAll("audio")) if (player !== event.target) player.pause();
}, true);

async function start() {
  const about = element("#about");
  try {
    const { classes, sample_rate, duration_s } = await ask("api/classes");
    for (const select of document.querySelectorAll("[data-classes], [data-starts]")) {
      select.append(...classes.map((name) => new Option(name, name)));
    }
    element("[name=to-class]").selectedIndex = Math.min(1, classes.length - 1);
    mixClasses(classes);
    const length = `${Number(duration_s.toFixed(2))} s at ${sample_rate / 1000} kHz`;
    about.textContent = `Sounds of up to ${length}. The same class and seed are always the same sound.`;
    for (const section of document.querySelectorAll("[data-making]")) section.hidden = section === kept;
  } catch (err) {
    about.textContent = "";
    if (err.status === 404) element("#start").hidden = false;
    else element("#trouble").textContent = err.message;
  }
}

addEventListener("DOMContentLoaded", start); // when all scripts are there
