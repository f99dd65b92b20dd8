"""The peak of this process, whose memory is that of the tests; on a GPU it is torch's own counter."""

import numpy as np

from evals.generate.peak import peak_memory

BLOCK = 200 * 2**20


def test_memory_that_was_held_and_freed_within_the_block_is_counted() -> None:
    with peak_memory(on_gpu=False) as quiet:
        pass
    with peak_memory(on_gpu=False) as busy:
        held = np.ones(BLOCK, dtype=np.uint8)
        del held
    with peak_memory(on_gpu=False) as after:
        pass
    assert quiet.num_bytes is not None
    assert busy.num_bytes is not None
    assert after.num_bytes is not None
    assert busy.num_bytes - quiet.num_bytes > 0.9 * BLOCK
    assert busy.num_bytes - after.num_bytes > 0.9 * BLOCK  # begins anew
