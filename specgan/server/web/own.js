"use strict";
// Sounds to go on from: the nearest to a sent one, and all that were kept; and variations of them.

const AGAIN_MS = 5000; // until the service is asked again whether its encoder is trained

/** Sends a file, once more while the service trains what it needs for it, and shows the nearest sound. */
function find(sent) {
  work(own, `Looking for the nearest sound to ${sent.name} …`, async (results) => {
    const body = new FormData();
    body.append("audio_file", sent);
    const { class: label } = valuesOf(element("form", own));
    if (label) body.append("class", label);
    const found = await whenTrained(() => ask("api/sounds", { method: "POST", body }));
    const name = fileName(sent.name.replace(/\.\w+$/, ""));
    const nearest = withStart(found.nearest);
    results.replaceChildren(
      newFigure(found, sent.name, wavOf(found, name)),
      newFigure(nearest, `Nearest to ${sent.name}: ${nearest.class}`, wavOf(nearest, `${name}_nearest`)),
    );
    goOnFrom(nearest.start, `Nearest to ${sent.name}`, { isQuiet: true });
    element("form", vary).requestSubmit();
    return `${found.message}.`;
  });
}

/** Asks until the encoder is trained. */
async function whenTrained(request) {
  for (;;) {
    try {
      return await request();
    } catch (err) {
      if (err.code !== "encoder_training") throw err;
      element(".status", own).textContent = "Training the encoder of this checkpoint, once: about two minutes …";
      await new Promise((done) => setTimeout(done, AGAIN_MS));
    }
  }
}

/** What a form goes on from, as the service takes it, and in words; `which`: the beginning of its fields' names. */
function startOf(form, which = "") {
  const { selectedOptions, value } = form.elements[`${which}class`];
  const seed = form.elements[`${which}seed`].valueAsNumber;
  const { sound } = selectedOptions[0].dataset;
  return sound ? [{ sound }, selectedOptions[0].text] : [{ class: value, seed }, `${value} (seed ${seed})`];
}

/** Chooses a sound as the start of variations, moves and morphs. */
function goOnFrom(start, words, { isQuiet = false } = {}) {
  for (const select of document.querySelectorAll("[data-starts]")) {
    const isOther = select.name === "to-class" || (isQuiet && select.closest("#morph"));
    const known = [...select.options].find((option) => start.sound && option.dataset.sound === start.sound);
    const option = known || (start.sound && Object.assign(new Option(words, words)));
    if (start.sound) {
      option.dataset.sound = start.sound;
      if (!known) select.append(option);
      if (!isOther) option.selected = true;
    } else if (!isOther) {
      for (const each of select.options) each.selected = !each.dataset.sound && each.value === start.class;
      select.form.elements[select.name.replace("class", "seed")].value = start.seed;
    }
    if (!isOther) select.dispatchEvent(new Event("change"));
  }
  if (isQuiet) return;
  element("button", vary).focus();
  vary.scrollIntoView();
}

// The seed is that of a class; sounds that were found or made are there already.
for (const select of document.querySelectorAll("[data-starts]")) {
  select.addEventListener("change", () => {
    const seed = select.form.elements[select.name.replace("class", "seed")];
    seed.disabled = Boolean(select.selectedOptions[0]?.dataset.sound);
  });
}

element("[name=distance]", vary).addEventListener("input", (event) => (element("output", vary).textContent = event.target.value));

element("form", vary).addEventListener("submit", (event) => {
  event.preventDefault();
  const { distance, first, n } = valuesOf(event.target);
  const [like, words] = startOf(event.target);
  work(vary, `Making ${soundsIn(Number(n))} …`, async (results) => {
    const asked = { like, distance: Number(distance), n: Number(n), seed: Number(first) };
    const { sounds } = await post("api/vary", asked);
    results.replaceChildren(
      ...sounds.map((sound, i) => {
        const caption = `${words}, distance ${distance}, variation ${asked.seed + i}`;
        return newFigure(withStart(sound), caption, wavOf(sound, fileName(`${words}_${distance}_${asked.seed + i}`)));
      }),
    );
    return `${soundsIn(sounds.length)} like ${words}.`;
  });
});
