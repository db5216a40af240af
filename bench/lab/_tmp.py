import os
import time

import psutil

from bench.lab.document import Busy


class Watch:
    def __init__(self):
        self.a = psutil.cpu_times()
        self.t = time.monotonic()

    def read(self, used_s):
        b = psutil.cpu_times()
        t = time.monotonic() - self.t
        n = os.cpu_count()
        busy = sum(getattr(b, k) - getattr(self.a, k) for k in ("user", "nice", "system", "irq", "softirq"))
        st = b.steal - self.a.steal
        o = max(0, (busy - used_s) / t / n)
        return Busy(round(o, 4), round(st / t / n, 4), os.getloadavg()[0], o + st / t / n > 0.05)


def reset_peaks(r):
    pass
