"""Whether work grows with the size of what it is given, as a test may ask on a busy machine."""

import time
from collections.abc import Callable


def assert_linear(work: Callable[[int], object], size: int, what: object = None) -> None:
    """`work(size)` takes little of the CPU, or ten times the size takes less than thirty times as long. `what` names it in a failure.

    A limit in seconds alone fails where other programs share the cores, as all work then takes several times as long.
    """

    def seconds(size: int) -> float:
        start = time.process_time()
        work(size)
        return time.process_time() - start

    if seconds(size) < 0.5:
        return
    whole, tenth = (min(seconds(part) for _ in range(3)) for part in (size, size // 10))
    assert whole < 10 and (whole < 0.5 or whole < 30 * tenth), f"{what}: {size} take {whole:.3g} s, a tenth of it {tenth:.3g} s"
