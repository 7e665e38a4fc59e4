"""From a configuration to the records and mappers of its data sets, as the method that their truth belongs to makes
them."""

from __future__ import annotations

from collections.abc import Sequence

from sam_common.config import CfgNode, one_of
from sam_common.contracts import Mapper, Record
from sam_common.data.dataset_spec import DatasetSpec
from sam_common.errors import UserError
from sam_common.method import Method, methods
from sam_common.structures import Vocabulary


def method_of_spec(spec: DatasetSpec) -> Method:
    """The method that learns from a data set's kind of truth.

    Raises:
        UserError: none does.
    """
    known = {kind: method for method in methods() for kind in method.truths}
    one_of(f"the truth of {spec.name}", spec.truth, known)
    return known[spec.truth]


def training_set(cfg: CfgNode, specs: Sequence[DatasetSpec]) -> tuple[Sequence[Record], Mapper]:
    """The records of all data sets that are trained on, and what makes model inputs of them.

    Raises:
        UserError: there are no data sets, their kinds of truth belong to several methods, or the method refuses them.
    """
    if not specs:
        raise UserError("DATASETS.TRAIN is empty; name a data set, or give --eval-only")
    _check_input(cfg)
    method = method_of_spec(specs[0])
    for spec in specs:
        if spec.truth not in method.truths:
            raise UserError(
                f"DATASETS.TRAIN: {specs[0].name} has {specs[0].truth} truth, {spec.name} {spec.truth}; choose one kind"
            )
    return method.training_set(cfg, specs)


def test_set(cfg: CfgNode, spec: DatasetSpec) -> tuple[Sequence[Record], Mapper]:
    """The records of a data set to test on, and what makes model inputs of them.

    Raises:
        UserError: a file of the data set or a key that says how it is read cannot be used.
    """
    _check_input(cfg)
    return method_of_spec(spec).test_set(cfg, spec)


def _check_input(cfg: CfgNode) -> None:
    one_of("INPUT.FORMAT", cfg.INPUT.FORMAT, ("RGB",))
    one_of("INPUT.RANDOM_FLIP", cfg.INPUT.RANDOM_FLIP, ("horizontal", "none"))


def common_vocabulary(specs: Sequence[DatasetSpec]) -> Vocabulary:
    """The classes of data sets that are trained on together.

    Raises:
        UserError: they differ.
    """
    vocabularies = [spec.load_vocabulary() for spec in specs]
    for spec, vocabulary in zip(specs, vocabularies, strict=True):
        if vocabulary != vocabularies[0]:
            raise UserError(f"DATASETS.TRAIN: {spec.name} has other classes than {specs[0].name}; train on one of them")
    return vocabularies[0]
