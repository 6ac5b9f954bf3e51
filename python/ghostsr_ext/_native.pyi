from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_CORRELATION_REACH: int

def build_info() -> dict[str, Any]: ...
def correlate_maps(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    reach_y: int,
    reach_x: int,
    *,
    threads: int = 1,
) -> NDArray[np.float64]: ...
