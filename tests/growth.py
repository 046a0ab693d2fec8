"""Whether work grows with the size of what it is given, as a test may ask on a busy machine."""

import time
from collections.abc import Callable


def assert_linear(work: Callable[[int], object], size: int, what: object = None) -> None:
    """`work(size)` takes under half a second of CPU time, or else under ten, and under thirty times what a tenth of the size takes.

    A small limit alone fails by chance: the garbage collector, and neighbours on the cores, stretch CPU time too. `what` names the work in
    a failure.
    """

    def seconds(size: int) -> float:
        start = time.process_time()
        work(size)
        return time.process_time() - start

    if seconds(size) < 0.5:
        return
    whole, tenth = (min(seconds(part) for _ in range(3)) for part in (size, size // 10))
    assert whole < 10 and (whole < 0.5 or whole < 30 * tenth), f"{what}: {size} take {whole:.3g} s, a tenth of it {tenth:.3g} s"
