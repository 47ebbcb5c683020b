"""A vocoder to which something happens. Workers import this module, so it imports little."""

import errno
import os
import signal

from specgan.vocoders.griffin_lim import GriffinLim


class Fails(GriffinLim):
    """At seed 9 the disk is full, or with `fault` "killed" the process ends."""

    def __init__(self, *args, fault):
        super().__init__(*args, n_iter=0)
        self.fault = fault

    def waveform(self, power, seeds):
        if seeds == [9]:
            if self.fault == "killed":
                os.kill(os.getpid(), signal.SIGKILL)
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().waveform(power, seeds)
