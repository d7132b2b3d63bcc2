"""The precision of a run that leaves it open: from three tries, from a checkpoint, or fp32."""

from collections.abc import Sequence

import pytest

from dfkd_core.architectures import describe
from dfkd_core.architectures.cost import NetworkCost, cost_of
from dfkd_core.planning.forecast import forecast
from dfkd_core.planning.precision_choice import are_depthwise, bf16_pays, choose_precision, computed_on
from dfkd_core.planning.worker_speed import WorkerSpeed
from dfkd_core.progress import Phase
from dfkd_core.report import PrecisionFacts
from dfkd_core.spec.config import DistillConfig
from tests.builders import worker_speed
from tests.dfkd_core.planning.test_memory import FACTS

PAYING = (1.7, 1.3, 2.4)


def config_of(**compute: object) -> DistillConfig:
    return DistillConfig.model_validate({"budget": {"steps": 1000}, "compute": compute})


@pytest.mark.parametrize(
    ("tries", "pays"),
    [
        (PAYING, True),
        ((1.7, 1.29, 2.4), False),  # every try counts
        ((3.0, 3.0), False),
        ((0.2, 0.2, 0.2), False),
        ((), False),
    ],
)
def test_bf16_pays_where_all_three_tries_say_so(tries: Sequence[float], *, pays: bool) -> None:
    assert bf16_pays(tries) == pays


def test_by_default_the_precision_is_left_to_the_worker() -> None:
    assert DistillConfig().compute.precision == "auto"


@pytest.mark.parametrize("asked", ["fp32", "bf16"])
def test_what_is_asked_for_holds_whatever_pays_here(asked: str) -> None:
    assert choose_precision(asked, tries=PAYING, recorded="bf16") == PrecisionFacts(value=asked, because="asked")
    assert config_of(precision=asked).computed_in("bf16").compute.precision == asked
    assert config_of(precision=asked).computed_in("fp32").compute.precision == asked


def test_a_checkpoint_keeps_its_precision_whatever_pays_here() -> None:
    for tries in ((), (1.0, 1.0, 1.0), PAYING):
        assert choose_precision("auto", tries=tries, recorded="bf16").value == "bf16"
        assert choose_precision("auto", tries=tries, recorded="fp32").value == "fp32"
        assert choose_precision("auto", tries=tries, recorded="fp32").because == "checkpoint"


def test_depthwise_networks_are_computed_in_fp32_on_a_cpu() -> None:
    def costs(architecture: str) -> NetworkCost:
        return cost_of(describe(architecture, input_shape=(3, 32, 32), num_classes=10))

    assert are_depthwise([costs("resnet8"), costs("mobilenetv2")])
    assert not are_depthwise([costs("resnet20"), costs("vgg11"), costs("lenet5")])
    chosen = choose_precision("auto", tries=PAYING, depthwise=True)
    assert chosen == PrecisionFacts(value="fp32", because="depthwise")
    assert choose_precision("bf16", depthwise=True).value == "bf16"
    assert choose_precision("auto", tries=(0.9, 1.0, 1.1), depthwise=True).because == "measured"


def test_the_choice_names_what_was_measured() -> None:
    assert choose_precision("auto", tries=PAYING) == PrecisionFacts(
        value="bf16", because="measured", bf16_tries=list(PAYING)
    )
    slow = choose_precision("auto", tries=(0.9, 1.0, 1.1))
    assert (slow.value, slow.because) == ("fp32", "measured")
    assert choose_precision("auto") == PrecisionFacts(value="fp32", because="not-measured")


def test_a_forecast_is_that_of_the_precision_that_the_worker_chooses() -> None:
    def seconds(speed: WorkerSpeed, **compute: object) -> float:
        return forecast(config_of(**compute), FACTS, speed).seconds[Phase.STUDENT]

    paying, slow = worker_speed(bf16_factor=3.0, bf16_tries=PAYING), worker_speed(bf16_factor=3.0)
    assert seconds(paying) == seconds(paying, precision="bf16") < seconds(paying, precision="fp32")
    assert seconds(slow) == seconds(slow, precision="fp32") > seconds(slow, precision="bf16")


def test_nothing_else_of_a_config_follows_from_the_worker() -> None:
    config = config_of(chunk=8)
    chosen = computed_on(config, worker_speed(bf16_tries=PAYING), (FACTS.teacher, FACTS.student))
    assert chosen.compute.precision == "bf16"
    assert chosen.model_copy(update={"compute": config.compute}) == config
    assert chosen.compute.model_copy(update={"precision": "auto"}) == config.compute


def test_a_measurement_of_an_earlier_version_has_no_tries() -> None:
    document = worker_speed().model_dump(mode="json", exclude={"bf16_tries"})
    assert not bf16_pays(WorkerSpeed.model_validate(document).bf16_tries)
