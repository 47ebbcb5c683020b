"use strict";
// Moves a sound, and mixes classes: by sliders, which are heard when they are let go.

const steering = { isBusy: false, isWanted: false, asked: "" }; // what the sliders' directions were asked for last

/** Adds a slider to a fieldset; without a value it is 0. */
function addSlider(fieldset, name, settings) {
  const part = element("#slider").content.cloneNode(true).firstElementChild;
  const [words, input, output, reason] = ["span", "input", "output", ".reason"].map((each) => element(each, part));
  Object.assign(input, { name: `${fieldset.id}-${name}`, value: 0, ...settings });
  input.setAttribute("value", input.value); // to which a reset goes
  [words.textContent, input.dataset.name] = [name, name];
  reason.id = `${fieldset.id}-${fieldset.children.length}`;
  input.setAttribute("aria-describedby", reason.id);
  const told = () => (output.textContent = fieldset.id === "moves" && input.valueAsNumber > 0 ? `+${input.value}` : input.value);
  input.addEventListener("input", told);
  input.addEventListener("told", told);
  input.addEventListener("change", move);
  told();
  fieldset.append(part);
}

const slidersOf = (id) => [...document.querySelectorAll(`#${id} input`)];

function setSlider(input, value) {
  input.value = value;
  input.dispatchEvent(new Event("told"));
}

/** A slider for each class. */
function mixClasses(classes) {
  for (const name of classes) addSlider(element("#mix"), name, { min: 0, max: 1, step: 0.05 });
  begin();
}

/** What the service goes on from, with the classes' shares where the sliders say others than the sound has. */
function mixed() {
  const [start, words] = startOf(element("form", steer));
  const weights = slidersOf("mix").filter((input) => input.valueAsNumber > 0).map((input) => [input.dataset.name, input.valueAsNumber]);
  if (!weights.length || (weights.length === 1 && weights[0][0] === start.class)) return [start, words];
  const classes = Object.fromEntries(weights);
  const shares = weights.map((weight) => weight.join(" ")).join(" + ");
  return start.sound ? [{ ...start, classes }, `${words} as ${shares}`] : [{ classes, seed: start.seed }, `${shares} (seed ${start.seed})`];
}

/** Asks what can be moved, and says at the sliders what cannot, and why. */
async function askDirections(like) {
  const { seed, ...ofClass } = like;
  const asked = JSON.stringify(ofClass);
  if (steering.asked === asked) return;
  const { most, directions } = await post("api/directions", { like: ofClass });
  const fieldset = element("#moves");
  const had = Boolean(slidersOf("moves").length);
  for (const { name } of had ? [] : directions) addSlider(fieldset, name, { min: -most, max: most, step: 0.25 });
  for (const [i, input] of slidersOf("moves").entries()) {
    const { refusal, meaning } = directions[i];
    input.disabled = refusal !== null;
    if (refusal) setSlider(input, 0);
    element(".reason", input.closest("div")).textContent = refusal ? `Cannot be moved here: ${refusal}.` : meaning;
  }
  steering.asked = asked;
}

/** Makes the sound that the sliders say; if they change meanwhile, once more. */
async function move() {
  steering.isWanted = true;
  if (steering.isBusy) return;
  steering.isBusy = true;
  while (steering.isWanted) {
    steering.isWanted = false;
    await work(steer, "Moving …", moveOnce);
  }
  steering.isBusy = false;
}

async function moveOnce(results) {
  const [like, words] = mixed();
  await askDirections(like);
  const moves = slidersOf("moves").filter((input) => input.valueAsNumber).map((input) => [input.dataset.name, input.valueAsNumber]);
  const { sound, moved } = await post("api/steer", { like, move: Object.fromEntries(moves) });
  const caption = [words, ...moves.map(([name, by]) => `${name} ${by > 0 ? "+" : ""}${by}`)].join(", ");
  const parts = [withStart(sound), caption, wavOf(sound, fileName(caption))];
  const figure = element("figure", results);
  if (figure) show(figure, ...parts);
  else results.replaceChildren(newFigure(...parts));
  element("audio", results).play().catch(() => {}); // its error is shown by the figure
  const short = moves.filter(([name, by]) => moved[name] / by < 0.5).map(([name, by]) => `${name} by ${moved[name].toFixed(1)} instead of ${by}`);
  return short.length ? `Moved, but ${short.join(", ")}: the checkpoint has no such sound.` : `${caption}.`;
}

/** Another start: nothing is moved yet, and it is of its own class. */
function begin() {
  const form = element("form", steer);
  const [{ class: label }] = startOf(form);
  for (const input of slidersOf("moves")) setSlider(input, 0);
  for (const input of slidersOf("mix")) setSlider(input, input.dataset.name === label ? 1 : 0);
  if (mixed()[0]) askDirections(mixed()[0]).catch((err) => (element(".error", steer).textContent = err.message));
}

element("form", steer).elements.class.addEventListener("change", begin);
element("form", steer).addEventListener("reset", (event) => {
  event.preventDefault(); // what was chosen to go on from stays
  begin();
});
element("form", steer).addEventListener("submit", (event) => {
  event.preventDefault();
  move();
});
