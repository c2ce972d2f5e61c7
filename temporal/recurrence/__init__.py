"""Recurrences over time: the equations (``equations``), fast paths that compute the same (``gru``, ``lstm``, ``sru``), layers and stacks.

Everything is time-major: x [T, B, D] -> the memory of every step [T, B, H]. Why an own fast path: back-propagation through an ordinary
loop adds one weight gradient of the size of the weights per step. Here the loop carries only what depends on the step before; the rest is
one matrix product over all steps, and what lies between two products is one sweep in C (``native``).
"""

from temporal.recurrence.dropout import Draws, Dropout
from temporal.recurrence.equations import gru_equations, lstm_equations, sru_equations
from temporal.recurrence.gru import fast_gru
from temporal.recurrence.layers import Kind, LayerOptions, RecurrentLayer, RecurrentStack, SRULayer
from temporal.recurrence.lstm import fast_lstm
from temporal.recurrence.seeds import widened
from temporal.recurrence.sru import fast_sru

__all__ = [
    "Draws",
    "Dropout",
    "Kind",
    "LayerOptions",
    "RecurrentLayer",
    "RecurrentStack",
    "SRULayer",
    "fast_gru",
    "fast_lstm",
    "fast_sru",
    "gru_equations",
    "lstm_equations",
    "sru_equations",
    "widened",
]
