"""Stacks of simple recurrent units, with and without residual connections between the layers."""

from torch import nn

from temporal.heads import HEADS
from temporal.heads.recurrent import RecurrentHead
from temporal.params import Param
from temporal.spec import HeadSpec

PARAMS = (
    Param("init", "uniform", "initial weights: uniform, or orthogonal matrices of each gate", choices=("uniform", "orthogonal")),
    Param("between", 0.0, "dropout between recurrent layers while training", low=0, high=0.95),
    Param("peephole", False, "the gates see c of the step before, as in the SRU of 2018; Zheng et al. have none"),
    Param("squash", True, "tanh of c before the reset gate, as in Zheng et al.; false: c itself, as in the SRU of 2018"),
    Param("highway_bias", 0.0, "initial bias of the reset gate; below 0 more of the input passes by", low=-20, high=20),
    Param("rescale", False, "scale the input that passes by, so that activations keep their variance through many layers"),
)
LAYERS = {"res_sru": 2}


@HEADS.register("sru")
def sru(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Stacked SRU: as fast as its matrix products, since nothing but element-wise work depends on the step before.

    Paper: Zheng et al. 2017
    """
    return RecurrentHead("sru", input_width, num_classes, spec, residual=False)


@HEADS.register("res_sru")
def res_sru(input_width: int, num_classes: int, spec: HeadSpec) -> nn.Module:
    """Residual stacked SRU, the stack of Lakhal et al. with SRU layers."""
    return RecurrentHead("sru", input_width, num_classes, spec, residual=True)
