"""A method that takes over costs no more than the run can pay."""

from dfkd_core.planning.fallback import fallback_options
from tests.dfkd_core.tiny import tiny_config


def test_a_usual_run_falls_back_to_the_usual_options() -> None:
    config = tiny_config(budget={"steps": 1500}, training={"batch_size": 128})
    found = fallback_options(config, "fast")
    assert (found.batch_size, found.warmup_rounds) == (128, 40)


def test_a_small_run_gets_small_batches_and_a_short_warm_up() -> None:
    config = tiny_config(budget={"steps": 60}, training={"batch_size": 32})
    found = fallback_options(config, "fast")
    assert (found.batch_size, found.warmup_rounds) == (32, 1)
