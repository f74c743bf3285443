"""What a gradient gives away of the data it was computed from."""

from __future__ import annotations

import msgspec
import numpy as np

from rolecall.core.errors import CallerError
from rolecall.core.tensors import Array, Tensors

__all__ = ("Inverted", "invert")


class Inverted(msgspec.Struct, frozen=True):
    """A sample recovered from a gradient, as a flat vector, and its label."""

    x: Array
    label: int


def invert(gradient: Tensors) -> Inverted:
    """Return the sample behind the gradient of one sample, of a network whose first layer is dense.

    For y = W x + b, dL/dW = (dL/db) x^T: any row of the one divided by its entry of the other is x, exactly
    (Phong et al. 2017, section 3; Geiping et al. 2020, proposition 3.1). Of a batch it is a mixture of the samples.
    The label is where the gradient of the last bias is lowest, under cross-entropy (Zhao et al. 2020).

    Raises `CallerError` where the first tensor is no matrix with a bias after it, or has no gradient at all.
    """
    names = list(gradient)
    if len(names) < 2 or gradient[names[0]].ndim != 2 or gradient[names[1]].shape != gradient[names[0]].shape[:1]:
        found = ", ".join(f"{name} {list(gradient[name].shape)}" for name in names[:2])
        raise CallerError(f"invert: the first layer is not dense with a bias (found {found}). Attack another model.")
    weight, bias = gradient[names[0]].astype(np.float64), gradient[names[1]].astype(np.float64)
    row = int(np.abs(bias).argmax())
    if bias[row] == 0:
        raise CallerError("invert: the gradient of the first layer is zero: no unit of it was active.")
    return Inverted(weight[row] / bias[row], int(gradient[names[-1]].argmin()))
