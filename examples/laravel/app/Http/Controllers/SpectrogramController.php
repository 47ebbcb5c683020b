<?php

namespace App\Http\Controllers;

use App\Services\Specgan;
use App\Services\SpecganException;
use Illuminate\Http\JsonResponse;
use Illuminate\Http\Request;

final class SpectrogramController extends Controller
{
    private const MAX_UPLOAD_BYTES = 15 * 1024 * 1024;

    public function __construct(private readonly Specgan $specgan)
    {
    }

    /** POST /spectrogram, multipart field audio_file. */
    public function draw(Request $request): JsonResponse
    {
        return $this->answer(function () use ($request) {
            $upload = $request->file('audio_file');
            if (is_array($upload) || $upload === null) {
                throw new SpecganException(400, 'no_file', 'Send the sound as the multipart field audio_file');
            }
            $isCut = in_array($upload->getError(), [UPLOAD_ERR_INI_SIZE, UPLOAD_ERR_FORM_SIZE], true);
            if ($isCut || $upload->getSize() > self::MAX_UPLOAD_BYTES) {
                throw new SpecganException(413, 'too_large', 'The upload is larger than this server takes');
            }
            if (!$upload->isValid()) {
                throw new SpecganException(400, 'broken_upload', $upload->getErrorMessage());
            }
            // PHP's own temporary file: PHP removes it when the request ends.
            $url = $this->specgan->drawSpectrogram($upload->getPathname());
            return ['message' => 'Spectrogram drawn', 'spectrogram_url' => $url];
        });
    }

    /** POST /sounds, JSON {"class": "kick", "n": 2, "seed": 0}. */
    public function make(Request $request): JsonResponse
    {
        return $this->answer(function () use ($request) {
            $sounds = $this->specgan->makeSounds(
                $request->string('class')->toString(),
                $request->integer('n', 1),
                $request->integer('seed'),
            );
            return ['message' => 'Sounds made', 'sounds' => $sounds];
        });
    }

    private function answer(callable $action): JsonResponse
    {
        try {
            return response()->json(['success' => true, ...$action()]);
        } catch (SpecganException $err) {
            $content = ['success' => false, 'message' => $err->getMessage(), 'error' => $err->error];
            return response()->json($content, $err->status);
        }
    }
}
