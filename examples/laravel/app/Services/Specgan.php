<?php

namespace App\Services;

use CURLFile;
use FilesystemIterator;

/** specgan through its service where `url` is set, else through its command line. Needs no framework. */
final class Specgan
{
    /**
     * @param string|null $url of the service, e.g. http://127.0.0.1:8000
     * @param string|null $publicUrl the same service as browsers reach it; null: `url`
     * @param string|null $folder specgan's checkout, where preprocess.py stands
     * @param string $python e.g. /srv/specgan/.venv/bin/python
     */
    public function __construct(
        private readonly ?string $url = null,
        private readonly ?string $publicUrl = null,
        private readonly ?string $folder = null,
        private readonly string $python = 'python',
        private readonly float $timeLimitS = 60,
    ) {
    }

    /**
     * Draws the spectrogram of the sound at $path.
     *
     * @return string an address for <img src>: of the service's file, which it keeps for some minutes, or the PNG itself
     * @throws SpecganException
     */
    public function drawSpectrogram(string $path): string
    {
        if (!$this->url) {
            return $this->drawByCommand($path);
        }
        $upload = new CURLFile($path, 'application/octet-stream', 'upload');
        $answer = $this->ask('/api/audio/generate-spectrogram', ['audio_file' => $upload]);
        return $this->addressOf($answer['spectrogram_url']);
    }

    /**
     * Makes $n sounds of a class, with the seeds from $seed on.
     *
     * @return list<array{class: string, seed: int, audio_url: string, spectrogram_url: string}>
     * @throws SpecganException
     */
    public function makeSounds(string $class, int $n = 1, int $seed = 0): array
    {
        if (!$this->url) {
            throw new SpecganException(501, 'no_service', 'New sounds need the service: set SPECGAN_URL');
        }
        $wanted = json_encode(['class' => $class, 'n' => $n, 'seed' => $seed], JSON_THROW_ON_ERROR);
        $answer = $this->ask('/api/generate', $wanted, ['Content-Type: application/json']);
        return array_map(fn (array $sound) => [
            ...$sound,
            'audio_url' => $this->addressOf($sound['audio_url']),
            'spectrogram_url' => $this->addressOf($sound['spectrogram_url']),
        ], $answer['sounds']);
    }

    private function addressOf(string $path): string
    {
        return rtrim($this->publicUrl ?? $this->url, '/') . $path;
    }

    private function ask(string $path, array|string $body, array $headers = []): array
    {
        $request = curl_init(rtrim($this->url, '/') . $path);
        curl_setopt_array($request, [
            CURLOPT_POSTFIELDS => $body,
            CURLOPT_HTTPHEADER => $headers,
            CURLOPT_RETURNTRANSFER => true,
            CURLOPT_TIMEOUT_MS => (int) ($this->timeLimitS * 1000),
        ]);
        $text = curl_exec($request);
        if (curl_errno($request) === CURLE_OPERATION_TIMEDOUT) {
            throw $this->tooSlow();
        }
        $answer = is_string($text) ? json_decode($text, true) : null;
        if (!is_array($answer)) {
            $why = curl_error($request) ?: 'no JSON';
            throw new SpecganException(502, 'no_answer', "The specgan service does not answer: $why");
        }
        $status = curl_getinfo($request, CURLINFO_RESPONSE_CODE);
        if ($status >= 400) {
            throw new SpecganException($status, $answer['error'], $answer['message']);
        }
        return $answer;
    }

    private function drawByCommand(string $input): string
    {
        if (!$this->folder) {
            throw new SpecganException(500, 'not_set_up', "Set SPECGAN_URL, or SPECGAN_DIR to specgan's folder");
        }
        $folder = sys_get_temp_dir() . '/spectrogram-' . bin2hex(random_bytes(8));
        mkdir($folder, 0700);
        try {
            // A list of arguments, no shell: nothing in a name can become a command. The link gives the sound a name
            // of ours, because some characters mean something in specgan's settings.
            symlink(realpath($input), "$folder/upload");
            $arguments = [$this->python, 'preprocess.py', 'task=render', "input=$folder/upload",
                "output=$folder/picture.png", 'task.width_px=1024', 'task.height_px=256'];
            $exit = $this->run($arguments, "$folder/errors.txt");
            if ($exit !== 0) {
                throw $this->fault(file_get_contents("$folder/errors.txt"), "$folder/upload");
            }
            return 'data:image/png;base64,' . base64_encode(file_get_contents("$folder/picture.png"));
        } finally { // whatever happened
            foreach (new FilesystemIterator($folder) as $file) {
                unlink($file->getPathname());
            }
            rmdir($folder);
        }
    }

    /** Returns the exit code. Standard error goes to a file, because a pipe that nobody empties would stop the process. */
    private function run(array $arguments, string $errors): int
    {
        $streams = [['file', '/dev/null', 'r'], ['file', '/dev/null', 'w'], ['file', $errors, 'w']];
        $process = @proc_open($arguments, $streams, $pipes, $this->folder);
        if ($process === false) {
            throw new SpecganException(500, 'not_drawn', "{$this->python} does not start; check SPECGAN_PYTHON");
        }
        $end = microtime(true) + $this->timeLimitS;
        try {
            while (($state = proc_get_status($process))['running']) {
                if (microtime(true) > $end) {
                    proc_terminate($process, 9);
                    throw $this->tooSlow();
                }
                usleep(20_000);
            }
            return $state['exitcode'];
        } finally {
            proc_close($process); // waits until it has really ended
        }
    }

    private function fault(string $errors, string $input): SpecganException
    {
        if (preg_match('/^.*AudioError: (.*)$/m', $errors, $found)) {
            return new SpecganException(400, 'not_audio', str_replace($input, 'The upload', $found[1]));
        }
        error_log($errors); // for whoever runs the server, not for its visitors
        return new SpecganException(500, 'not_drawn', "The picture could not be drawn; the server's log says why");
    }

    private function tooSlow(): SpecganException
    {
        $message = "That took longer than {$this->timeLimitS} s; try a shorter sound";
        return new SpecganException(504, 'time_limit', $message);
    }
}
