<?php

// For routes/api.php, whose routes need no CSRF token.

use App\Http\Controllers\SpectrogramController;
use Illuminate\Support\Facades\Route;

Route::middleware('throttle:20,1')->group(function () {
    Route::post('/spectrogram', [SpectrogramController::class, 'draw']);
    Route::post('/sounds', [SpectrogramController::class, 'make']);
});
