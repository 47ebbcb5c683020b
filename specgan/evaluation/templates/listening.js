"use strict";
// Plays the sounds of the page, takes points for them, and saves these as a file.

const part = (id) => document.getElementById(id);
const { page, most, classes, audio } = JSON.parse(part("content").textContent);
const PLACE = `specgan-listening-${page}`; // in the browser's storage, which all pages of a disk share
const GAP_MS = 350; // between the sounds of a set

/** One screen each: a sound, or the sets of a class. */
const steps = classes.flatMap(({ name, sounds, sets }, i) => {
  const each = { name, nthClass: i + 1 };
  return [
    ...sounds.map((sound, j) => ({ ...each, sound, nth: j + 1, of: sounds.length })),
    ...(sets.length ? [{ ...each, sets }] : []),
  ];
});
const hints = {
  quality: ["Quality", () => `0: broken or full of noise. ${most}: clean and natural, as a very good recording.`],
  fit: ["Fit to the class", (name) => `0: something else. ${most}: clearly “${name}”.`],
  diversity: ["Diversity", (name) => `0: always the same sound. ${most}: as different as sounds of “${name}” can be.`],
};

// --- what is kept

const random = () => Array.from(crypto.getRandomValues(new Uint8Array(6)), (byte) => byte.toString(16).padStart(2, "0")).join("");
const empty = () => ({ browser: random(), listener: "", step: -1, sounds: {}, sets: {} });
let state = { ...empty(), ...kept() };

function kept() {
  try {
    return JSON.parse(localStorage.getItem(PLACE)) ?? {};
  } catch {
    return {};
  }
}

function keep() {
  try {
    localStorage.setItem(PLACE, JSON.stringify(state));
  } catch {
    complain("This browser keeps nothing of this page: save your ratings before you close it.");
  }
}

function complain(words) {
  part("trouble").textContent = words;
  part("trouble").hidden = false;
}

/** The questions of a screen: whose points they are, and what is asked. */
const questionsOf = ({ sound, sets }) =>
  sets
    ? sets.map((set) => ({ points: (state.sets[set.number] ??= {}), what: "diversity", set }))
    : ["quality", "fit"].map((what) => ({ points: (state.sounds[sound] ??= {}), what }));
const isRated = (step) => questionsOf(step).every(({ points, what }) => what in points);

// --- what is heard

const player = new Audio();
let playing = 0; // counts up, so that a sequence ends when another begins

/** Plays sounds one after another; `button` shows it. */
async function play(numbers, button, words) {
  silence();
  const own = playing;
  button.classList.add("plays");
  for (const [i, number] of numbers.entries()) {
    if (i) await new Promise((done) => setTimeout(done, GAP_MS));
    if (own !== playing) return;
    words?.(i);
    player.src = `data:audio/flac;base64,${audio[number]}`;
    const ended = new Promise((done) => { player.onended = player.onerror = player.onpause = done; });
    try {
      await player.play();
      await ended;
    } catch (err) {
      if (err.name === "NotSupportedError") complain("This browser cannot play the sounds of this page; try another one.");
    }
    if (own !== playing) return;
  }
  button.classList.remove("plays");
  words?.(-1);
}

function silence() {
  playing++;
  player.pause();
  for (const button of document.querySelectorAll(".plays")) button.classList.remove("plays");
}

// --- what is seen

let active = 0; // the question that a digit answers

const shown = () => steps[state.step];
const boxes = () => [...part("questions").querySelectorAll(".question")];

function show(name) {
  silence();
  for (const section of document.querySelectorAll("section")) section.hidden = section.id !== name;
  scrollTo(0, 0);
  part(name).querySelector("h1").focus({ preventScroll: true }); // where a reader of the screen goes on
}

function open(index) {
  state.step = Math.max(-1, Math.min(index, steps.length));
  keep();
  if (state.step < 0) return openStart();
  if (state.step === steps.length) return openEnd();
  const { name, nthClass, sets, nth, of } = shown();
  part("rate").querySelector("h1").textContent = name;
  part("place").textContent = `Class ${nthClass} of ${classes.length}, ${sets ? "all its sounds" : `sound ${nth} of ${of}`}`;
  part("asked").textContent = sets ? `How different are the sounds of each set? ${hints.diversity[1](name)}` : "";
  part("questions").replaceChildren(...(sets ? [] : [newPlay("Play")]), ...questionsOf(shown()).map(newQuestion));
  part("status").textContent = "";
  const missing = questionsOf(shown()).findIndex(({ points, what }) => !(what in points));
  activate(Math.max(0, missing));
  showPoints();
  show("rate");
  if (!sets) playActive();
}

function openStart() {
  part("listener").value = state.listener;
  part("begin").textContent = steps.some(isBegun) ? "Go on" : "Start";
  show("start");
}

function openEnd() {
  const n = steps.filter(isRated).length;
  const isDone = n === steps.length;
  part("end").querySelector("h1").textContent = isDone ? "Thank you" : "Not all is rated yet";
  part("sum").textContent = isDone
    ? "All is rated. Save it, and send the file to whoever gave you this page."
    : `${n} of ${steps.length} steps are complete. You can go on, also another day in this browser, or save what there is.`;
  part("missing").hidden = isDone;
  part("signed").value = state.listener;
  part("saved").textContent = "";
  show("end");
}

const isBegun = (step) => questionsOf(step).some(({ points, what }) => what in points);

function newPlay(words, index = 0) {
  const button = document.createElement("button");
  Object.assign(button, { type: "button", className: "play main" });
  label(button, words);
  button.addEventListener("click", () => {
    if (shown().sets) activate(index);
    playActive();
  });
  return button;
}

function label(button, words) {
  const key = document.createElement("kbd");
  key.textContent = "space";
  button.replaceChildren(`▶ ${words} `, key);
}

function newQuestion({ what, set }, index) {
  const box = part("question").content.cloneNode(true).firstElementChild;
  const [heading, hint, marks] = box.children;
  const [title, words] = hints[what];
  heading.textContent = set ? `Set ${set.letter}` : title;
  heading.id = `title-${index}`;
  box.setAttribute("aria-labelledby", heading.id);
  if (set) {
    hint.replaceWith(newPlay(`Play the ${set.sounds.length} sounds`, index));
    box.querySelector(".play").classList.remove("main");
  } else {
    hint.textContent = words(shown().name);
    hint.id = `hint-${index}`;
    box.setAttribute("aria-describedby", hint.id);
  }
  for (let points = 0; points <= most; points++) {
    const button = document.createElement("button");
    Object.assign(button, { type: "button", textContent: points });
    button.addEventListener("click", ({ detail }) => {
      activate(index);
      give(points);
      if (detail) part("rate").querySelector("h1").focus({ preventScroll: true }); // so that space plays again
    });
    marks.append(button);
  }
  return box;
}

function activate(index) {
  active = index;
  for (const [i, box] of boxes().entries()) box.classList.toggle("active", i === index);
}

function playActive() {
  const { sound, sets } = shown();
  if (!sets) return play([sound], part("questions").querySelector(".play"));
  const { sounds } = sets[active];
  const button = part("questions").querySelectorAll(".play")[active];
  play(sounds, button, (i) => label(button, i < 0 ? `Play the ${sounds.length} sounds` : `Sound ${i + 1} of ${sounds.length}`));
}

function showPoints() {
  for (const [i, { points, what }] of questionsOf(shown()).entries())
    for (const [n, button] of boxes()[i].querySelectorAll(".marks button").entries())
      button.setAttribute("aria-pressed", points[what] === n);
  const n = steps.filter(isRated).length;
  Object.assign(part("progress"), { max: steps.length, value: n });
  part("progress").setAttribute("aria-valuetext", `${n} of ${steps.length} steps`);
}

function give(value) {
  const questions = questionsOf(shown());
  const { points, what, set } = questions[active];
  points[what] = value;
  keep();
  showPoints();
  part("status").textContent = `${set ? `Set ${set.letter}` : hints[what][0]}: ${value}`;
  if (active + 1 < questions.length) activate(active + 1);
  boxes()[active].scrollIntoView({ block: "nearest" });
}

// --- what is pressed

const keys = {
  " ": playActive, p: playActive, t: () => give(most),
  n: () => open(state.step + 1), ArrowRight: () => open(state.step + 1), Enter: () => open(state.step + 1),
  b: () => open(state.step - 1), ArrowLeft: () => open(state.step - 1),
  ArrowDown: () => activate(Math.min(active + 1, boxes().length - 1)), ArrowUp: () => activate(Math.max(active - 1, 0)),
};
for (let digit = 0; digit < 10; digit++) keys[digit] = () => give(digit);

document.addEventListener("keydown", (event) => {
  const isButton = event.target.closest("button") && [" ", "Enter"].includes(event.key); // which it presses
  if (part("rate").hidden || isButton || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
  const action = keys[event.key.length === 1 ? event.key.toLowerCase() : event.key];
  if (!action) return;
  event.preventDefault();
  action();
});

part("try").addEventListener("click", () => play([classes[0].sounds[0]], part("try")));
part("begin").addEventListener("click", () => open(Math.max(0, firstMissing())));
part("back").addEventListener("click", () => open(state.step - 1));
part("next").addEventListener("click", () => open(state.step + 1));
part("stop").addEventListener("click", () => open(steps.length));
part("return").addEventListener("click", () => open(steps.length - 1));
part("missing").addEventListener("click", () => open(firstMissing()));
part("save").addEventListener("click", save);
part("again").addEventListener("click", () => {
  if (!confirm("Clear all ratings of this page in this browser? What is not saved is lost.")) return;
  state = empty();
  open(-1);
});
for (const id of ["listener", "signed"])
  part(id).addEventListener("input", (event) => {
    state.listener = event.target.value;
    keep();
  });

const firstMissing = () => steps.findIndex((step) => !isRated(step));

function save() {
  const rated = (all) => Object.fromEntries(Object.entries(all).filter(([, points]) => Object.keys(points).length));
  const { browser, listener, sounds, sets } = state;
  const content = { page, browser, listener, saved: new Date().toISOString(), sounds: rated(sounds), sets: rated(sets) };
  const name = listener.trim().replace(/[^\p{L}\p{N}]+/gu, "-") || browser.slice(0, 6);
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([JSON.stringify(content, null, 2)], { type: "application/json" }));
  link.download = `ratings-${name}.json`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  part("saved").textContent = `Saved as ${link.download}, in the folder of your downloads.`;
}

open(state.step);
