"""Names by which modules that are not verbs yet know latlas.verbs; goes with them."""

from latlas.run import OBSERVATION, Run
from latlas.verbs.common import Array, Progress
from latlas.verbs.passes import (
    base_measure_of,
    can,
    condition_of,
    examples_of,
    in_units_of,
    inference,
    noise,
    sweep,
    to_data,
)

__all__ = ["OBSERVATION", "Array", "Progress", "base_measure_of", "can", "check", "condition_of",
           "in_units_of", "inference", "items_of", "noise", "sweep", "to_data"]
items_of = examples_of


def check(model, capability):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN201, D103
    Run.of(model).require(capability)
