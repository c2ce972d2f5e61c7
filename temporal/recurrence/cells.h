/* The cells for one type: REAL is what is computed with, STORED what the matrix products read and write (GET and PUT convert). */

INLINE REAL NAME(sigmoid)(REAL x) { return (REAL)1 / ((REAL)2 + LESS_ONE(-x)); }
INLINE REAL NAME(hyperbolic)(REAL x) {
    REAL e = LESS_ONE(2 * x);
    return e / (e + (REAL)2);
}
#define SIGMOID NAME(sigmoid)
#define TANH NAME(hyperbolic)
/* Row `at` of a tensor of the problem, one step earlier; zeros before the first. */
#define BEFORE(tensor, t, at) ((t) ? (const REAL *)p->tensor + ((at) - B) * H : (const REAL *)p->zeros)

/* SRU: a row is a whole sequence. U = W x has the blocks x~, f, r and, with `projected`, the highway's projection of x. */
INLINE void NAME(sru_forward_row)(const Problem *p, long row, int peephole, int squash, int projected) {
    const long H = p->hidden, T = p->steps, B = p->batch, K = p->columns * H, s = row / B, b = row % B;
    const REAL *bias = (const REAL *)p->bias_x + s * 2 * H;
    const REAL *v = peephole ? (const REAL *)p->peephole + s * 2 * H : bias;
    const REAL scale = (REAL)p->scale;
    for (long t = 0; t < T; t++) {
        const long at = (s * T + t) * B + b;
        const STORED *restrict u = (const STORED *)p->gates + at * K;
        const REAL *restrict c0 = BEFORE(cell, t, at);
        REAL *restrict c1 = (REAL *)p->cell + at * H;
        REAL *restrict out = (REAL *)p->memory + at * H;
        const REAL *restrict x = projected ? bias : (const REAL *)p->x + at * H;
        SIMD for (long h = 0; h < H; h++) {
            REAL before = c0[h], fresh = GET(u[h]);
            REAL f = GET(u[H + h]) + bias[h], r = GET(u[2 * H + h]) + bias[H + h];
            if (peephole) f += v[h] * before, r += v[H + h] * before;
            f = SIGMOID(f), r = SIGMOID(r);
            REAL c = fresh + f * (before - fresh);
            REAL g = squash ? TANH(c) : c;
            REAL way = projected ? GET(u[3 * H + h]) : scale * x[h];
            c1[h] = c;
            out[h] = way + r * (g - way);
        }
    }
}

INLINE void NAME(sru_backward_row)(const Problem *p, long row, int peephole, int squash, int projected) {
    const long H = p->hidden, T = p->steps, B = p->batch, K = p->columns * H, s = row / B, b = row % B;
    const REAL *bias = (const REAL *)p->bias_x + s * 2 * H;
    const REAL *v = peephole ? (const REAL *)p->peephole + s * 2 * H : bias;
    const REAL scale = (REAL)p->scale;
    REAL *restrict to_cell = (REAL *)p->to_cell + row * H;
    REAL *restrict to_bias = (REAL *)p->to_bias + row * 2 * H;
    REAL *restrict to_v = peephole ? (REAL *)p->to_peephole + row * 2 * H : to_bias;
    for (long t = T - 1; t >= 0; t--) {
        const long at = (s * T + t) * B + b;
        const STORED *restrict u = (const STORED *)p->gates + at * K;
        STORED *restrict to_u = (STORED *)p->to_gates + at * K;
        const REAL *restrict c0 = BEFORE(cell, t, at);
        const REAL *restrict c1 = (const REAL *)p->cell + at * H;
        const REAL *restrict to_out = (const REAL *)p->to_memory + at * H;
        const REAL *restrict x = projected ? bias : (const REAL *)p->x + at * H;
        REAL *restrict to_x = projected ? to_cell : (REAL *)p->to_x + at * H;
        SIMD for (long h = 0; h < H; h++) {
            REAL before = c0[h], fresh = GET(u[h]);
            REAL f = GET(u[H + h]) + bias[h], r = GET(u[2 * H + h]) + bias[H + h];
            if (peephole) f += v[h] * before, r += v[H + h] * before;
            f = SIGMOID(f), r = SIGMOID(r);
            REAL g = squash ? TANH(c1[h]) : c1[h];
            REAL way = projected ? GET(u[3 * H + h]) : scale * x[h];
            REAL out = to_out[h];
            REAL to_way = out - out * r;
            REAL to_c = to_cell[h] + out * r * (squash ? 1 - g * g : 1);
            REAL to_f = to_c * (before - fresh) * f * (1 - f);
            REAL to_r = out * (g - way) * r * (1 - r);
            REAL back = to_c * f;
            if (peephole) {
                back += to_f * v[h] + to_r * v[H + h];
                to_v[h] += to_f * before;
                to_v[H + h] += to_r * before;
            }
            to_u[h] = PUT(to_c - to_c * f);
            to_u[H + h] = PUT(to_f);
            to_u[2 * H + h] = PUT(to_r);
            if (projected) to_u[3 * H + h] = PUT(to_way);
            to_bias[h] += to_f;
            to_bias[H + h] += to_r;
            to_cell[h] = back;
            if (!projected) to_x[h] = scale * to_way;
        }
    }
}

#define SRU_ROWS(direction)                                                                                          \
    VARIANTS void NAME(sru_##direction##_rows)(const void *problem, long t, long first, long last) {                 \
        const Problem *p = problem;                                                                                  \
        (void)t;                                                                                                     \
        for (long row = first; row < last; row++) switch ((p->peephole ? 4 : 0) + (p->squash ? 2 : 0) + !p->x) {     \
                case 0: NAME(sru_##direction##_row)(p, row, 0, 0, 0); break;                                         \
                case 1: NAME(sru_##direction##_row)(p, row, 0, 0, 1); break;                                         \
                case 2: NAME(sru_##direction##_row)(p, row, 0, 1, 0); break;                                         \
                case 3: NAME(sru_##direction##_row)(p, row, 0, 1, 1); break;                                         \
                case 4: NAME(sru_##direction##_row)(p, row, 1, 0, 0); break;                                         \
                case 5: NAME(sru_##direction##_row)(p, row, 1, 0, 1); break;                                         \
                case 6: NAME(sru_##direction##_row)(p, row, 1, 1, 0); break;                                         \
                default: NAME(sru_##direction##_row)(p, row, 1, 1, 1); break;                                        \
            }                                                                                                        \
    }                                                                                                                \
    void NAME(sru_##direction)(const Problem *p, long t) {                                                           \
        each_row(NAME(sru_##direction##_rows), p, t, p->seeds * p->steps * p->batch * p->hidden);                    \
    }
SRU_ROWS(forward)
SRU_ROWS(backward)
#undef SRU_ROWS

/* LSTM and GRU: a row is a sequence at step t. `recurrent` holds what the memory of the step before gives, nothing at the first step. */
INLINE void NAME(lstm_forward_row)(const Problem *p, long t, long row, int first) {
    const long H = p->hidden, T = p->steps, B = p->batch, s = row / B, b = row % B;
    const long at = (s * T + t) * B + b;
    STORED *restrict gates = (STORED *)p->gates + at * 4 * H;
    const STORED *restrict by_memory = (const STORED *)p->recurrent + row * 4 * H;
    const REAL *restrict bias = (const REAL *)p->bias_x + s * 4 * H;
    const REAL *restrict c0 = BEFORE(cell, t, at);
    REAL *restrict c1 = (REAL *)p->cell + at * H;
    REAL *restrict memory = (REAL *)p->memory + at * H;
    STORED *restrict low = p->low ? (STORED *)p->low + at * H : 0;
    SIMD for (long h = 0; h < H; h++) {
        REAL i = GET(gates[h]) + bias[h], f = GET(gates[H + h]) + bias[H + h];
        REAL g = GET(gates[2 * H + h]) + bias[2 * H + h], o = GET(gates[3 * H + h]) + bias[3 * H + h];
        if (!first) {
            i += GET(by_memory[h]), f += GET(by_memory[H + h]);
            g += GET(by_memory[2 * H + h]), o += GET(by_memory[3 * H + h]);
        }
        i = SIGMOID(i), f = SIGMOID(f), g = TANH(g), o = SIGMOID(o);
        REAL c = f * c0[h] + i * g;
        c1[h] = c;
        memory[h] = o * TANH(c);
        gates[h] = PUT(i), gates[H + h] = PUT(f), gates[2 * H + h] = PUT(g), gates[3 * H + h] = PUT(o);
    }
    if (low) for (long h = 0; h < H; h++) low[h] = PUT(memory[h]);
}

INLINE void NAME(lstm_backward_row)(const Problem *p, long t, long row, int last) {
    const long H = p->hidden, T = p->steps, B = p->batch, s = row / B, b = row % B;
    const long at = (s * T + t) * B + b;
    const STORED *restrict gates = (const STORED *)p->gates + at * 4 * H;
    STORED *restrict to_gates = (STORED *)p->to_gates + at * 4 * H;
    const REAL *restrict to_memory = (const REAL *)p->to_memory + at * H;
    const STORED *restrict carried = (const STORED *)p->carried + row * H;
    REAL *restrict to_cell = (REAL *)p->to_cell + row * H;
    const REAL *restrict c0 = BEFORE(cell, t, at);
    const REAL *restrict c1 = (const REAL *)p->cell + at * H;
    SIMD for (long h = 0; h < H; h++) {
        REAL i = GET(gates[h]), f = GET(gates[H + h]), g = GET(gates[2 * H + h]), o = GET(gates[3 * H + h]);
        REAL seen = TANH(c1[h]);
        REAL to_m = last ? to_memory[h] : to_memory[h] + GET(carried[h]);
        REAL to_c = to_m * o * (1 - seen * seen);
        if (!last) to_c += to_cell[h];
        to_gates[h] = PUT(to_c * g * i * (1 - i));
        to_gates[H + h] = PUT(to_c * c0[h] * f * (1 - f));
        to_gates[2 * H + h] = PUT(to_c * i * (1 - g * g));
        to_gates[3 * H + h] = PUT(to_m * seen * o * (1 - o));
        to_cell[h] = to_c * f;
    }
}

INLINE void NAME(gru_forward_row)(const Problem *p, long t, long row, int first) {
    const long H = p->hidden, T = p->steps, B = p->batch, s = row / B, b = row % B;
    const long at = (s * T + t) * B + b;
    STORED *restrict gates = (STORED *)p->gates + at * 3 * H;
    STORED *restrict kept = (STORED *)p->kept + at * H;
    const STORED *restrict by_memory = (const STORED *)p->recurrent + row * 3 * H;
    const REAL *restrict b_x = (const REAL *)p->bias_x + s * 3 * H, *restrict b_h = (const REAL *)p->bias_h + s * 3 * H;
    const REAL *restrict before = BEFORE(memory, t, at);
    REAL *restrict memory = (REAL *)p->memory + at * H;
    STORED *restrict low = p->low ? (STORED *)p->low + at * H : 0;
    SIMD for (long h = 0; h < H; h++) {
        REAL r = b_h[h], z = b_h[H + h], by = b_h[2 * H + h];
        if (!first) r += GET(by_memory[h]), z += GET(by_memory[H + h]), by += GET(by_memory[2 * H + h]);
        r = SIGMOID(GET(gates[h]) + b_x[h] + r);
        z = SIGMOID(GET(gates[H + h]) + b_x[H + h] + z);
        REAL n = TANH(GET(gates[2 * H + h]) + b_x[2 * H + h] + r * by);
        memory[h] = n + z * (before[h] - n);
        gates[h] = PUT(r), gates[H + h] = PUT(z), gates[2 * H + h] = PUT(n), kept[h] = PUT(by);
    }
    if (low) for (long h = 0; h < H; h++) low[h] = PUT(memory[h]);
}

/* to_gates has the blocks n of the memory's products, r, z, n of the input's; `to_cell` is what goes past the gates to the step before. */
INLINE void NAME(gru_backward_row)(const Problem *p, long t, long row, int last) {
    const long H = p->hidden, T = p->steps, B = p->batch, s = row / B, b = row % B;
    const long at = (s * T + t) * B + b;
    const STORED *restrict gates = (const STORED *)p->gates + at * 3 * H;
    const STORED *restrict kept = (const STORED *)p->kept + at * H;
    STORED *restrict to_gates = (STORED *)p->to_gates + at * 4 * H;
    const REAL *restrict to_memory = (const REAL *)p->to_memory + at * H;
    const STORED *restrict carried = (const STORED *)p->carried + row * H;
    REAL *restrict past = (REAL *)p->to_cell + row * H;
    const REAL *restrict before = BEFORE(memory, t, at);
    SIMD for (long h = 0; h < H; h++) {
        REAL r = GET(gates[h]), z = GET(gates[H + h]), n = GET(gates[2 * H + h]);
        REAL to_h = last ? to_memory[h] : to_memory[h] + past[h] + GET(carried[h]);
        REAL to_n = to_h * (1 - z) * (1 - n * n);
        to_gates[h] = PUT(to_n * r);
        to_gates[H + h] = PUT(to_n * GET(kept[h]) * r * (1 - r));
        to_gates[2 * H + h] = PUT(to_h * (before[h] - n) * z * (1 - z));
        to_gates[3 * H + h] = PUT(to_n);
        past[h] = to_h * z;
    }
}

#define STEP_ROWS(cell, direction, edge)                                                                   \
    VARIANTS void NAME(cell##_##direction##_rows)(const void *problem, long t, long first, long last) {    \
        const Problem *p = problem;                                                                        \
        if (t == (edge)) {                                                                                 \
            for (long row = first; row < last; row++) NAME(cell##_##direction##_row)(p, t, row, 1);        \
        } else {                                                                                           \
            for (long row = first; row < last; row++) NAME(cell##_##direction##_row)(p, t, row, 0);        \
        }                                                                                                  \
    }                                                                                                      \
    void NAME(cell##_##direction)(const Problem *p, long t) {                                              \
        each_row(NAME(cell##_##direction##_rows), p, t, p->seeds * p->batch * p->hidden);                  \
    }
STEP_ROWS(lstm, forward, 0)
STEP_ROWS(lstm, backward, p->steps - 1)
STEP_ROWS(gru, forward, 0)
STEP_ROWS(gru, backward, p->steps - 1)
#undef STEP_ROWS

#undef SIGMOID
#undef TANH
#undef BEFORE
#undef NAME
#undef REAL
#undef STORED
#undef GET
#undef PUT
#undef LESS_ONE
