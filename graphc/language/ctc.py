"""ctc_loss: the probability of a labelling whose alignment with the steps is not known, summed over all of them.

Connectionist temporal classification (Graves et al. 2006) is a recurrence like any other: its state is the logarithm of
the probability of all beginnings of paths, and its gradient, their backward variables, comes by `gc.grad`.
"""

from __future__ import annotations

import numpy as np

from graphc.errors import AxisError, DtypeError, ShapeError
from graphc.ir import Axis
from graphc.language.functions import concat, embedding, roll, stack, where
from graphc.language.graph import Graph, check_graph
from graphc.language.probabilities import log_softmax, logaddexp, logsumexp
from graphc.language.value import Value, check_value


def ctc_loss(
    g: Graph,
    logits: Value,
    labels: Value,
    over: Axis,
    label_lengths: Value | None = None,
    blank: int = 0,
    name: str = "ctc",
) -> Value:
    """-log p(labels) by connectionist temporal classification (Graves et al. 2006), one number for each example.

    `logits` have an event (classes,) at each step along `over`, of which `blank` says nothing; `labels` are an int32
    event (L,) without that axis, and count up to `label_lengths`. Of fewer steps than labels need, it is infinite.
    """
    check_graph(g)
    for item, what in ((logits, "logits"), (labels, "labels")):
        check_value(item, f"ctc_loss takes as {what}")
    if not isinstance(over, Axis):
        raise AxisError(f"ctc_loss goes along an axis, over=t, got {over!r}")
    if len(logits.shape) != 1 or len(labels.shape) != 1:
        raise ShapeError(
            f"ctc_loss takes logits of event (classes,) and labels of event (L,), got {logits.shape} and {labels.shape}"
        )
    if labels.dtype != "int32":
        raise DtypeError(f"the labels of ctc_loss are int32 numbers of classes, got {labels.dtype}")
    if over not in logits.axes or over in labels.axes:
        raise AxisError(f"ctc_loss goes along axis {over.name!r}, over which logits vary and labels do not")
    length = labels.shape[0]
    end = length if label_lengths is None else label_lengths
    labels = where(np.arange(length) < end, labels, blank)
    spoken = stack([where(labels == labels, blank, labels), labels], dim=1).reshape(2 * length)
    spoken = concat([spoken, spoken[:1]])  # a blank before, between and after the labels
    place = np.arange(2 * length + 1)
    repeats = spoken == roll(spoken, 2)  # between equal labels there must be a blank; from a blank nothing leaps

    alpha = g.state(
        name,
        (2 * length + 1,),
        over=tuple(dict.fromkeys((*logits.axes, *labels.axes))),
        initial=np.where(place == 0, 0.0, -np.inf),
        dtype=logits.dtype,
    )
    before = alpha[over - 1]
    step = where(place >= 1, roll(before, 1), -np.inf)
    leap = where(repeats | (place < 3) | (place % 2 == 0), -np.inf, roll(before, 2))
    alpha[over] = logaddexp(logaddexp(before, step), leap) + embedding(log_softmax(logits), spoken)
    ends = (place == 2 * end) | (place == 2 * end - 1)
    return -logsumexp(where(ends, alpha[over.last], -np.inf), dim=0)
