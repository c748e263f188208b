"""How much of each hour was productive: sums over spans, sampled on a grid, at a constant cost for each span. Pure."""

from itertools import accumulate

HOUR_MS = 3_600_000


class Curve:
    """The integral of a step function that is given as spans with weights. Exact at the points of its grid."""

    def __init__(self, begin_ms: int, end_ms: int, step_ms: int) -> None:
        self.begin_ms, self.step_ms = begin_ms, step_ms
        self.points = max(1, -(-(end_ms - begin_ms) // step_ms)) + 1
        # A span contributes weight * (t - begin) to all t after its begin, and the opposite after its end.
        self._slopes = [0] * (self.points + 1)
        self._offsets = [0] * (self.points + 1)

    def add(self, begin_ms: int, end_ms: int, weight: int) -> None:
        """A span inside the curve's range."""
        begin_ms -= self.begin_ms
        end_ms -= self.begin_ms
        step_ms, slopes, offsets = self.step_ms, self._slopes, self._offsets
        index = -(-begin_ms // step_ms)
        slopes[index] += weight
        offsets[index] += weight * begin_ms
        index = -(-end_ms // step_ms)
        slopes[index] -= weight
        offsets[index] -= weight * end_ms

    def integral(self) -> list[int]:
        """The sum up to each point of the grid, in weight-milliseconds."""
        slopes = accumulate(self._slopes[: self.points])
        offsets = accumulate(self._offsets[: self.points])
        return [
            number * self.step_ms * slope - offset
            for number, (slope, offset) in enumerate(zip(slopes, offsets, strict=True))
        ]


def sliding(part: Curve, whole: Curve, *, window_ms: int = HOUR_MS) -> list[tuple[int, float]]:
    """By moment (epoch milliseconds), the share of the window before it, from the first whole window on.

    Moments in whose window nothing was are left out; what is shorter than a window is one.
    """
    back = max(1, window_ms // whole.step_ms)
    parts, wholes = part.integral(), whole.integral()
    found = []
    for number in range(min(back, whole.points - 1), whole.points):
        first = max(0, number - back)
        span = wholes[number] - wholes[first]
        if span > 0:
            share = (parts[number] - parts[first]) / span
            found.append((whole.begin_ms + number * whole.step_ms, share))
    return found


def cumulative(part: Curve, whole: Curve) -> list[tuple[int, float]]:
    """By moment, the share of everything up to it."""
    pairs = zip(part.integral(), whole.integral(), strict=True)
    return [
        (whole.begin_ms + number * whole.step_ms, one / all_) for number, (one, all_) in enumerate(pairs) if all_ > 0
    ]
