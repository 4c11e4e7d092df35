"""The gate: the reasons why a model must not go live.

TFMA and ServingCheck decide (they bless the model or not). This module says why, once for
everybody who reads it: the run's summary, the reviewers' page and the pages in Kubeflow.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeGuard

from pipeline import config

# Custom properties of the Evaluator's evaluation.
MAE = "mean_absolute_error"  # on the test photos without an objection, years
BASELINE_MAE = f"baseline_{MAE}"  # of the live model; missing if there is none
MEASURED = "measured"  # number of these photos
REFUSED = "refused"  # share of the test photos with an objection, 0 to 1
OBJECTIONS = "objections"  # JSON: the number of test photos with each objection
CHALLENGE = "challenge"  # JSON: the model's certificate, and who passes on the test photos
COMPARISON = "comparison"  # JSON: what `paired.compare` found; missing if no model is live
# Custom property of ServingCheck's blessing: why the model can't be served; empty if it can.
REASON = "reason"


def reasons(
    gate: config.Evaluator,
    guard: config.Guard,
    evaluation: Mapping[str, Any],
    served: Mapping[str, Any],
) -> list[str]:
    """Why the gate is shut, a phrase for each reason; empty if the gate is open.

    Args:
        gate: the bounds of the MAE and of the number of photos.
        guard: the bound of the refused photos.
        evaluation: properties of the Evaluator's evaluation. NaN is above every bound.
        served: properties of ServingCheck's blessing.
    """
    mae, refused, baseline = evaluation[MAE], evaluation[REFUSED], evaluation.get(BASELINE_MAE)
    found = []
    if evaluation[MEASURED] < gate.min_test_photos:
        found.append(
            f"the number of test photos without an objection is {evaluation[MEASURED]:,.0f}, which "
            f"is below the bound of {gate.min_test_photos:,} (evaluator.min_test_photos)"
        )
    if not mae <= gate.max_mae:
        found.append(f"MAE {mae:.2f} years is above the bound of {gate.max_mae:.2f}")
    if baseline is not None and not mae - baseline <= gate.max_mae_increase:
        found.append(
            f"MAE {mae:.2f} years is worse than the live model's {baseline:.2f} by more than "
            f"{gate.max_mae_increase:.2f}"
        )
    if not refused <= guard.max_refused_test:
        found.append(
            f"the model refuses {refused:.1%} of the test photos, which is above the bound of "
            f"{guard.max_refused_test:.1%} (guard.max_refused_test)"
        )
    found += contradictions(json.loads(evaluation[CHALLENGE]))
    found += regressions(json.loads(evaluation.get(COMPARISON, "{}")))
    if reason := served.get(REASON):
        found.append(f"it can't be served: {reason}")
    return found


def contradictions(challenge: Mapping[str, Any]) -> list[str]:
    """Where the test photos contradict a certificate, a phrase for each group of minors.

    A right certificate is contradicted by chance in at most 5 % of the cases: if the lower end of
    the one-sided 95 % interval of the share that passes is above the allowed share.

    Args:
        challenge: the evaluation's CHALLENGE.
    """
    # Not at the top: SciPy takes longer to import than most commands of `goodseed` take.
    from components.certificate import Proof

    if not challenge["certified"]:
        return []
    groups = [Proof(**group) for group in challenge["minors_on_test"]]
    return [
        f"{group.passed:,} of {group.photos:,} test photos of people {group.aged} pass without ID, "
        f"which contradicts the certified {group.max_share:.0%}"
        for group in groups
        if group.lower > group.max_share
    ]


def regressions(comparison: Mapping[str, Any]) -> list[str]:
    """In what the candidate is worse than the live model, and not by chance.

    Args:
        comparison: the evaluation's COMPARISON; empty if no model is live.
    """
    found = []
    mae, minors = comparison.get("mae"), comparison.get("minors")
    if _is_worse(mae):
        found.append(
            f"MAE is {mae['difference']:.2f} years worse than the live model's on the same "
            f"{mae['photos']:,} photos, and at least {mae['lower']:.2f} (95 % sure)"
        )
    if _is_worse(minors):
        found.append(
            f"of 100 minors, {100 * minors['difference']:.1f} more pass without ID than with the "
            f"live model, on the same {minors['photos']:,} photos, and at least "
            f"{100 * minors['lower']:.1f} (95 % sure)"
        )
    return found


def _is_worse(change: Mapping[str, Any] | None) -> TypeGuard[Mapping[str, Any]]:
    return change is not None and change["lower"] is not None and change["lower"] > 0
