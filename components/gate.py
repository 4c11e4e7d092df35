"""The gate: the reasons why a model must not go live.

TFMA and ServingCheck decide (they bless the model or not). This module says why, once for
everybody who reads it: the run's summary, the reviewers' page and the pages in Kubeflow.
"""

from __future__ import annotations

from pipeline import config

# Custom properties of the Evaluator's evaluation: MAE on the whole test split, years.
MAE = "mean_absolute_error"
BASELINE_MAE = f"baseline_{MAE}"  # of the live model; missing if there is none
# Custom property of ServingCheck's blessing: why the model can't be served; empty if it can.
REASON = "reason"


def reasons(
    gate: config.Evaluator, mae: float, baseline_mae: float | None, serving_reason: str | None
) -> list[str]:
    """Why the gate is shut, a phrase for each reason; empty if the gate is open.

    Args:
        gate: the bounds.
        mae: of the candidate, years; NaN is above every bound.
        baseline_mae: of the live model, years; None if no model is live.
        serving_reason: ServingCheck's REASON.
    """
    found = []
    if not mae <= gate.max_mae:
        found.append(f"MAE {mae:.2f} years is above the bound of {gate.max_mae:.2f}")
    if baseline_mae is not None and not mae - baseline_mae <= gate.max_mae_increase:
        found.append(
            f"MAE {mae:.2f} years is worse than the live model's {baseline_mae:.2f} by more than "
            f"{gate.max_mae_increase:.2f}"
        )
    if serving_reason:
        found.append(f"it can't be served: {serving_reason}")
    return found
