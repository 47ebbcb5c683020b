"use strict";
// Kept sounds: in this page, also when the service has forgotten them; all of them as a zip.

/** Returns what is at an address as a data URL. */
async function dataUrl(address) {
  const answer = await fetch(address);
  if (!answer.ok) throw new Error("No longer there: the service keeps files for some minutes. Make it again.");
  const reader = new FileReader();
  reader.readAsDataURL(await answer.blob());
  await new Promise((done) => (reader.onload = done));
  return reader.result;
}

/** Copies the sound of a figure into the page. */
async function keep(figure) {
  const { sound, caption, file: name } = figure;
  if ([...kept.querySelectorAll("figure")].some((each) => each.of === sound.audio_url)) return;
  try {
    const [audio_url, spectrogram_url] = await Promise.all([sound.audio_url, sound.spectrogram_url].map(dataUrl));
    const copy = newFigure({ ...sound, audio_url, spectrogram_url }, caption, [audio_url, name, "Download WAV"]);
    copy.of = sound.audio_url;
    const remove = element("[name=keep]", copy).cloneNode();
    Object.assign(remove, { textContent: "Remove", ariaLabel: `Remove: ${caption}` });
    remove.addEventListener("click", () => {
      copy.remove();
      tellKept();
      (element("button", kept.hidden ? make : kept)).focus();
    });
    element("[name=keep]", copy).replaceWith(remove);
    element(".results", kept).append(copy);
    tellKept();
  } catch (err) {
    element(".error", figure).textContent = err.message;
  }
}

function tellKept() {
  const n = kept.querySelectorAll("figure").length;
  kept.hidden = n === 0;
  element(".status", kept).textContent = `${soundsIn(n)} kept.`;
}

const CRC = Uint32Array.from({ length: 256 }, (_, n) => {
  for (let i = 0; i < 8; i++) n = n & 1 ? 0xedb88320 ^ (n >>> 1) : n >>> 1;
  return n;
});
const crcOf = (bytes) => ~bytes.reduce((crc, byte) => CRC[(crc ^ byte) & 255] ^ (crc >>> 8), -1) >>> 0;

/** A record of numbers, each with its size in bytes, and what follows it. */
function record(numbers, ...rest) {
  const bytes = new DataView(new ArrayBuffer(numbers.reduce((sum, [size]) => sum + size, 0)));
  let at = 0;
  for (const [size, number] of numbers) {
    if (size === 2) bytes.setUint16(at, number, true);
    else bytes.setUint32(at, number, true);
    at += size;
  }
  return new Blob([bytes, ...rest]);
}

/** A zip of [name, bytes], not compressed: sounds hardly get smaller. By the APPNOTE of PKWARE. */
function zipOf(files) {
  const [locals, centrals] = [[], []];
  let offset = 0;
  for (const [name, bytes] of files) {
    const path = new TextEncoder().encode(name);
    const both = [[2, 20], [2, 0x800], [2, 0], [2, 0], [2, 0x21], [4, crcOf(bytes)], [4, bytes.length], [4, bytes.length], [2, path.length], [2, 0]];
    const local = record([[4, 0x04034b50], ...both], path, bytes);
    centrals.push(record([[4, 0x02014b50], [2, 20], ...both, [2, 0], [2, 0], [2, 0], [4, 0], [4, offset]], path));
    locals.push(local);
    offset += local.size;
  }
  const central = new Blob(centrals);
  const n = files.length;
  const end = record([[4, 0x06054b50], [2, 0], [2, 0], [2, n], [2, n], [4, central.size], [4, offset], [2, 0]]);
  return new Blob([...locals, central, end], { type: "application/zip" });
}

element("form", kept).addEventListener("submit", (event) => {
  event.preventDefault();
  work(kept, "Packing …", async (results) => {
    const files = new Map();
    for (const figure of results.children) {
      const name = fileName(figure.file.replace(/\.wav$/, ""));
      let path = `${name}.wav`;
      for (let i = 2; files.has(path); i++) path = `${name}_${i}.wav`;
      files.set(path, new Uint8Array(await (await fetch(figure.sound.audio_url)).arrayBuffer()));
    }
    const link = Object.assign(document.createElement("a"), { download: "kept.zip" });
    link.href = URL.createObjectURL(zipOf([...files]));
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60000);
    return `${soundsIn(files.size)} in kept.zip.`;
  });
});
