"""Recurrences over time as the papers write them: the slow twins of the fast paths.

Everything is time-major: x [T, B, D] -> the memory of every step [T, B, H]. Weights of GRU and LSTM have the layout of ``torch.nn.GRU``
and ``torch.nn.LSTM`` (gates r, z, n and i, f, g, o), those of the SRU the blocks x~, f, r.
"""

import torch
from torch import Tensor


def gru_equations(x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
    """The slow twin of ``fast_gru``.

    r = s(W_xr x_t + b_xr + W_hr h_{t-1} + b_hr);  z likewise;  n = tanh(W_xn x_t + b_xn + r * (W_hn h_{t-1} + b_hn));
    h_t = (1 - z) * n + z * h_{t-1};  h_0 = 0.
    """
    h = x.new_zeros(x.shape[1], w_h.shape[1])
    memories = []
    for x_t in x:
        x_r, x_z, x_n = (x_t @ w_x.t() + b_x).chunk(3, dim=1)
        h_r, h_z, h_n = (h @ w_h.t() + b_h).chunk(3, dim=1)
        r, z = torch.sigmoid(x_r + h_r), torch.sigmoid(x_z + h_z)
        n = torch.tanh(x_n + r * h_n)
        h = (1 - z) * n + z * h
        memories.append(h)
    return torch.stack(memories)


def lstm_equations(x: Tensor, w_x: Tensor, w_h: Tensor, b_x: Tensor, b_h: Tensor) -> Tensor:
    """The slow twin of ``fast_lstm``.

    (i, f, o) = s(W x_t + b_x + U m_{t-1} + b_h);  g = tanh(the same);  c_t = f * c_{t-1} + i * g;  m_t = o * tanh(c_t);  c_0 = m_0 = 0.
    """
    m = x.new_zeros(x.shape[1], w_h.shape[1])
    c = m
    memories = []
    for x_t in x:
        i, f, g, o = (x_t @ w_x.t() + b_x + m @ w_h.t() + b_h).chunk(4, dim=1)
        c = torch.sigmoid(f) * c + torch.sigmoid(i) * torch.tanh(g)
        m = torch.sigmoid(o) * torch.tanh(c)
        memories.append(m)
    return torch.stack(memories)


def sru_equations(
    x: Tensor, weight: Tensor, bias: Tensor, peephole: Tensor | None = None, squash: bool = True, scale: float = 1.0
) -> Tensor:
    """The slow twin of ``fast_sru`` (Lei et al.; PAPERS C has no peephole, g = tanh and scale 1).

    x~_t = W x_t;  f_t = s(W_f x_t + v_f * c_{t-1} + b_f);  r_t = s(W_r x_t + v_r * c_{t-1} + b_r);
    c_t = f_t * c_{t-1} + (1 - f_t) * x~_t;  h_t = r_t * g(c_t) + (1 - r_t) * a x_t;  c_0 = 0.

    ``weight`` [3 H, D] holds W, W_f, W_r; with a fourth block W_p [4 H, D], the highway term is (1 - r_t) * W_p x_t, for x of other
    widths than H. ``bias`` [2 H]: b_f, b_r; ``peephole`` [2 H]: v_f, v_r, else 0; ``squash``: g is tanh, else the identity; ``scale``: a.
    """
    hidden = len(bias) // 2
    b_f, b_r = bias.chunk(2)
    v_f, v_r = torch.zeros_like(bias).chunk(2) if peephole is None else peephole.chunk(2)
    c = x.new_zeros(x.shape[1], hidden)
    outputs = []
    for x_t in x:
        fresh, to_f, to_r, *projected = (x_t @ weight.t()).split(hidden, dim=1)
        f, r = torch.sigmoid(to_f + v_f * c + b_f), torch.sigmoid(to_r + v_r * c + b_r)
        c = f * c + (1 - f) * fresh
        g = torch.tanh(c) if squash else c
        outputs.append(r * g + (1 - r) * (projected[0] if projected else scale * x_t))
    return torch.stack(outputs)
