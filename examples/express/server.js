// POST /spectrogram: the picture of an uploaded sound. POST /sounds: new sounds of a class.
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { promisify } from "node:util";
import express from "express";
import multer from "multer";
import { drawSpectrogram, makeSounds, SpecganError } from "./specgan.js";

const MAX_UPLOAD_MB = Number(process.env.MAX_UPLOAD_MB ?? 15);

const app = express();

app.post("/spectrogram", async (req, res) => {
  const folder = await mkdtemp(join(tmpdir(), "spectrogram-"));
  try {
    await receive(req, res, folder);
    if (!req.file) throw new SpecganError(400, "no_file", "Send the sound as the multipart field audio_file");
    const spectrogram_url = await drawSpectrogram(req.file.path);
    res.json({ success: true, message: "Spectrogram drawn", spectrogram_url });
  } finally {
    await rm(folder, { recursive: true, force: true }); // whatever happened
  }
});

app.post("/sounds", express.json(), async (req, res) => {
  res.json({ success: true, message: "Sounds made", sounds: await makeSounds(req.body ?? {}) });
});

// Express 5 brings errors of async handlers here.
app.use((err, req, res, next) => {
  if (res.headersSent) return next(err);
  if (!(err instanceof SpecganError)) {
    const isTheirs = err.status < 500; // of express.json
    if (!isTheirs) console.error(err);
    err = isTheirs
      ? new SpecganError(err.status, "bad_request", err.message)
      : new SpecganError(500, "internal", "Something is wrong here; the server's log says what");
  }
  res.status(err.status).json({ success: false, message: err.message, error: err.error });
});

/** Writes the upload into `folder`, under a name of ours: the visitor's may hold anything. */
async function receive(req, res, folder) {
  const storage = multer.diskStorage({ destination: folder, filename: (_req, _file, done) => done(null, "upload") });
  const limits = { fileSize: MAX_UPLOAD_MB * 1024 * 1024, files: 1 };
  try {
    await promisify(multer({ storage, limits }).single("audio_file"))(req, res);
  } catch (err) {
    if (err.syscall) throw err; // the disk's
    if (err.code !== "LIMIT_FILE_SIZE") throw new SpecganError(400, "bad_form", err.message);
    throw new SpecganError(413, "too_large", `The upload is larger than ${MAX_UPLOAD_MB} MB`);
  }
}

const server = app.listen(Number(process.env.PORT ?? 3000), "127.0.0.1", () => {
  console.log(`http://127.0.0.1:${server.address().port}`);
});
