// specgan from Node: through its service where SPECGAN_URL names one, else through its command line.
import { execFile } from "node:child_process";
import { readFile } from "node:fs/promises";
import { dirname, join } from "node:path";
import { promisify } from "node:util";

const run = promisify(execFile);

const SERVICE = process.env.SPECGAN_URL; // e.g. http://127.0.0.1:8000
const PUBLIC = process.env.SPECGAN_PUBLIC_URL ?? SERVICE; // the same service as browsers reach it
const FOLDER = process.env.SPECGAN_DIR; // the checkout, where preprocess.py stands
const PYTHON = process.env.SPECGAN_PYTHON ?? "python"; // e.g. /srv/specgan/.venv/bin/python
const TIME_LIMIT_S = Number(process.env.TIME_LIMIT_S ?? 60);

/** What the caller did wrong, or what is wrong here: `status` of the answer, `error` in one word. */
export class SpecganError extends Error {
  constructor(status, error, message) {
    super(message);
    Object.assign(this, { status, error });
  }
}

/**
 * Draws the spectrogram of the sound at `path`. Files are made beside it; removing them is up to the caller.
 * Returns an address for <img src>: of the service's file, which it keeps for some minutes, or the PNG itself (data:).
 */
export async function drawSpectrogram(path) {
  if (!SERVICE) return drawByCommand(path);
  const body = new FormData();
  body.append("audio_file", new Blob([await readFile(path)]), "upload"); // as large as the server lets uploads be
  const answer = await ask("/api/audio/generate-spectrogram", { body });
  return addressOf(answer.spectrogram_url);
}

/** Makes `n` sounds of a class, with the seeds from `seed` on: [{class, seed, audio_url, spectrogram_url}]. */
export async function makeSounds({ class: name, n = 1, seed = 0 }) {
  if (!SERVICE) throw new SpecganError(501, "no_service", "New sounds need the service: set SPECGAN_URL");
  const headers = { "Content-Type": "application/json" };
  const { sounds } = await ask("/api/generate", { headers, body: JSON.stringify({ class: name, n, seed }) });
  return sounds.map((sound) => ({
    ...sound,
    audio_url: addressOf(sound.audio_url),
    spectrogram_url: addressOf(sound.spectrogram_url),
  }));
}

const addressOf = (path) => new URL(path, PUBLIC).href;

async function ask(path, { headers, body }) {
  const signal = AbortSignal.timeout(TIME_LIMIT_S * 1000);
  let answer, content;
  try {
    answer = await fetch(new URL(path, SERVICE), { method: "POST", headers, body, signal });
    content = await answer.json();
  } catch (err) {
    if (err.name === "TimeoutError") throw tooSlow();
    throw new SpecganError(502, "no_answer", `The specgan service does not answer: ${err.cause?.code ?? err.message}`);
  }
  if (!answer.ok) throw new SpecganError(answer.status, content.error, content.message);
  return content;
}

async function drawByCommand(input) {
  if (!FOLDER) throw new SpecganError(500, "not_set_up", "Set SPECGAN_URL, or SPECGAN_DIR to specgan's folder");
  const output = join(dirname(input), "picture.png");
  // A list of arguments, no shell: nothing in a name can become a command.
  const settings = ["task.width_px=1024", "task.height_px=256"];
  const args = ["preprocess.py", "task=render", `input=${input}`, `output=${output}`, ...settings];
  try {
    await run(PYTHON, args, { cwd: FOLDER, timeout: TIME_LIMIT_S * 1000, killSignal: "SIGKILL" });
  } catch (err) {
    if (err.killed) throw tooSlow();
    const fault = /^.*AudioError: (.*)$/m.exec(err.stderr ?? "");
    if (fault) throw new SpecganError(400, "not_audio", fault[1].replaceAll(input, "The upload"));
    console.error(err.stderr || err.message); // for whoever runs the server, not for its visitors
    throw new SpecganError(500, "not_drawn", "The picture could not be drawn; the server's log says why");
  }
  return `data:image/png;base64,${await readFile(output, "base64")}`;
}

const tooSlow = () => new SpecganError(504, "time_limit", `That took longer than ${TIME_LIMIT_S} s; try a shorter sound`);
