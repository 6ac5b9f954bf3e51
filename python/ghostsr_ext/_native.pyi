from typing import Any

import numpy as np
from numpy.typing import NDArray

MAX_LAG: int

def build_info() -> dict[str, Any]: ...
def correlate_maps(
    first: NDArray[np.float32],
    second: NDArray[np.float32],
    max_lag_y: int,
    max_lag_x: int,
    *,
    threads: int = 1,
) -> NDArray[np.float64]: ...
