"""The experiments of the study, in the lecture's order."""

from inception.errors import UsageError
from inception.study import auxiliary, budget, counts, lineage, pooling, reduction, sparsity, steps
from inception.study.experiment import Experiment

EXPERIMENTS: tuple[Experiment, ...] = (
    counts.EXPERIMENT,
    reduction.EXPERIMENT,
    auxiliary.EXPERIMENT,
    pooling.EXPERIMENT,
    sparsity.EXPERIMENT,
    budget.EXPERIMENT,
    lineage.EXPERIMENT,
    steps.EXPERIMENT,
)


def find_experiment(name: str) -> Experiment:
    """The experiment called `name`. Raises UsageError, listing all, when there is none."""
    for experiment in EXPERIMENTS:
        if experiment.id == name:
            return experiment
    names = ", ".join(experiment.id for experiment in EXPERIMENTS)
    raise UsageError(f"no experiment is called '{name}': the experiments are {names}; 'all' runs them all")
