<?php

// The service class without Laravel: php try.php draw song.mp3, php try.php make kick 2

require __DIR__ . '/app/Services/SpecganException.php';
require __DIR__ . '/app/Services/Specgan.php';

$specgan = new App\Services\Specgan(
    url: getenv('SPECGAN_URL') ?: null,
    publicUrl: getenv('SPECGAN_PUBLIC_URL') ?: null,
    folder: getenv('SPECGAN_DIR') ?: null,
    python: getenv('SPECGAN_PYTHON') ?: 'python',
    timeLimitS: (float) (getenv('TIME_LIMIT_S') ?: 60),
);
try {
    $answer = ['success' => true] + match ($argv[1] ?? '') {
        'draw' => ['spectrogram_url' => $specgan->drawSpectrogram($argv[2])],
        'make' => ['sounds' => $specgan->makeSounds($argv[2], (int) ($argv[3] ?? 1), (int) ($argv[4] ?? 0))],
    };
} catch (App\Services\SpecganException $err) {
    $answer = ['success' => false, 'message' => $err->getMessage(), 'error' => $err->error];
}
echo json_encode($answer, JSON_PRETTY_PRINT | JSON_UNESCAPED_SLASHES), "\n";
exit($answer['success'] ? 0 : 1);
