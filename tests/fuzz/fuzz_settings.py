"""How much the fuzz tests try: GHOSTSR_FUZZ_EXAMPLES examples each, few by default."""

import os

from hypothesis import HealthCheck, settings

# For these tests alone: a profile would count for the others, too.
FUZZ = settings(
    max_examples=int(os.environ.get("GHOSTSR_FUZZ_EXAMPLES", "30")),
    deadline=None,
    derandomize="GHOSTSR_FUZZ_EXAMPLES" not in os.environ,
    print_blob=True,
    suppress_health_check=list(HealthCheck),
)
