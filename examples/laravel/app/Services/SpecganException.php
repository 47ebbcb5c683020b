<?php

namespace App\Services;

use RuntimeException;

/** What the caller did wrong, or what is wrong here: `status` of the answer, `error` in one word. */
final class SpecganException extends RuntimeException
{
    public function __construct(public readonly int $status, public readonly string $error, string $message)
    {
        parent::__construct($message);
    }
}
