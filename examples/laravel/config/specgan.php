<?php

return [
    'url' => env('SPECGAN_URL'),
    'publicUrl' => env('SPECGAN_PUBLIC_URL'),
    'folder' => env('SPECGAN_DIR'),
    'python' => env('SPECGAN_PYTHON', 'python'),
    'timeLimitS' => (float) env('TIME_LIMIT_S', 60),
];
