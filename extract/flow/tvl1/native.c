/* TV-L1 optical flow of one pair of images: the equations of steps.py, operation for operation, so that both give the same bits.
 *
 * One thread computes one pair; its planes stay in the cache and nothing is shared. Each inner iteration is one sweep over the rows: the
 * primal step of row y, then the dual step of row y - 1, whose two rows of u are both new by then. Compiled without contraction (a fused
 * multiply-add rounds once where torch rounds twice) and without -ffast-math.
 */
#include <math.h>
#include <stddef.h>
#include <string.h>

#if defined(TVL1_VARIANTS) && defined(__x86_64__) /* the loader takes the variant that the processor can run */
#define VARIANTS __attribute__((target_clones("avx2", "default")))
#else
#define VARIANTS
#endif
#define SIMD _Pragma("omp simd")
#define INLINE static inline __attribute__((always_inline))

enum { PAD = 16, RING = 4, CHANNELS = 4, LANES = 16, PLANES = 10 };
typedef float four __attribute__((vector_size(16), aligned(16)));

typedef struct {
    double step;    /* size of a level over the size of the finer one */
    double epsilon; /* root mean square change of u in pixels at which a warp is done */
    float l_t;      /* lambda theta */
    float theta;
    float taut; /* tau / theta */
    int warps, inner, outer, median;
} Params;

typedef struct { /* planes of one level; a row is `stride` long with PAD floats before its first pixel */
    int height, width;
    ptrdiff_t stride;
    float *wx, *wy, *rho, *u[2], *spare, *p[2][2], *error, *column[5];
} Level;

INLINE float at_least(float a, float b) { return a > b ? a : b; } /* b for a that is no number, so that no place is */
INLINE float at_most(float a, float b) { return a < b ? a : b; }
#define SORT(a, b) (t = at_most(a, b), b = at_least(a, b), a = t)
#define SORT_5(a, b, c, d, e) \
    SORT(a, b), SORT(d, e), SORT(c, e), SORT(c, d), SORT(b, e), SORT(a, d), SORT(a, c), SORT(b, d), SORT(b, c)

static ptrdiff_t stride_of(int width) { return (width + 15) / 16 * 16 + 2 * PAD; }

/* Floats of working memory for a level: ten planes with a row above and below, a row of errors, five rows of sorted columns. */
static size_t level_floats(int height, int width) { return (size_t)stride_of(width) * (PLANES * ((size_t)height + 2) + 6); }

static size_t ring_floats(int height, int width) { return (size_t)CHANNELS * (height + 2 * RING) * (width + 2 * RING); }

static float *take(float **work, size_t floats) {
    float *taken = *work;
    *work += floats;
    return taken;
}

static Level lay_out(float *work, int height, int width) {
    Level level = {.height = height, .width = width, .stride = stride_of(width)};
    float **planes[PLANES] = {&level.wx,    &level.wy,      &level.rho,     &level.u[0],    &level.u[1],
                              &level.spare, &level.p[0][0], &level.p[0][1], &level.p[1][0], &level.p[1][1]};
    memset(work, 0, sizeof(float) * level_floats(height, width));
    for (int k = 0; k < PLANES; k++) *planes[k] = take(&work, level.stride * (height + 2)) + level.stride + PAD;
    level.error = take(&work, level.stride) + PAD;
    for (int k = 0; k < 5; k++) level.column[k] = take(&work, level.stride) + PAD;
    return level;
}

/* Bilinear, pixel centres at half numbers, the border repeated; `scale` source pixels a pixel. */
static void coordinate(int index, double scale, int size, int *first, int *second, float *weight) {
    double place = (index + 0.5) * scale - 0.5, whole = floor(place);
    *weight = (float)(place - whole);
    if (whole < 0) whole = 0, *weight = 0;
    if (whole >= size - 1) whole = size - 1, *weight = 0;
    *first = (int)whole;
    *second = *first + 1 < size ? *first + 1 : *first;
}

static void resize(const float *from, ptrdiff_t from_stride, int from_height, int from_width, float *to, ptrdiff_t to_stride, int height,
                   int width, double scale_y, double scale_x, float factor, float *half) {
    for (int x = 0; x < width; x++) {
        int left, right;
        float weight;
        coordinate(x, scale_x, from_width, &left, &right, &weight);
        for (int y = 0; y < from_height; y++) {
            const float *row = from + y * from_stride;
            half[(ptrdiff_t)y * width + x] = row[left] * (1 - weight) + row[right] * weight;
        }
    }
    for (int y = 0; y < height; y++) {
        int top, bottom;
        float weight;
        coordinate(y, scale_y, from_height, &top, &bottom, &weight);
        const float *above = half + (ptrdiff_t)top * width, *below = half + (ptrdiff_t)bottom * width;
        for (int x = 0; x < width; x++) to[y * to_stride + x] = (above[x] * (1 - weight) + below[x] * weight) * factor;
    }
}

/* The second image and its central differences, interleaved, in a ring of zeros: what the warp samples. */
static void interleave(const float *image, int height, int width, float *ring) {
    ptrdiff_t stride = (ptrdiff_t)CHANNELS * (width + 2 * RING);
    memset(ring, 0, sizeof(float) * ring_floats(height, width));
    for (int y = 0; y < height; y++) {
        const float *row = image + (ptrdiff_t)y * width;
        const float *above = y ? row - width : row, *below = y < height - 1 ? row + width : row;
        float *out = ring + (y + RING) * stride + RING * CHANNELS;
        for (int x = 0; x < width; x++) {
            out[CHANNELS * x] = row[x];
            out[CHANNELS * x + 1] = 0.5f * (row[x < width - 1 ? x + 1 : x] - row[x ? x - 1 : 0]);
            out[CHANNELS * x + 2] = 0.5f * (below[x] - above[x]);
        }
    }
}

/* Cubic convolution weights (Keys 1981) with a = -3/4 for the fraction t. */
INLINE void cubic(float t, float *weights) {
    const float a = -0.75f;
    float s = 1 - t;
    weights[0] = a * t * s * s;
    weights[1] = ((a + 2) * t - (a + 3)) * t * t + 1;
    weights[3] = a * s * t * t;
    weights[2] = ((1 - weights[0]) - weights[1]) - weights[3];
}

/* I1(x + u) and its gradient, and the constant part of the residual: rho = I1(x + u) - <grad I1(x + u), u> - I0. */
VARIANTS static void warp(const Level *level, const float *reference, const float *ring) {
    int height = level->height, width = level->width;
    ptrdiff_t stride = (ptrdiff_t)CHANNELS * (width + 2 * RING);
    for (int y = 0; y < height; y++) {
        for (int x = 0; x < width; x++) {
            ptrdiff_t here = y * level->stride + x;
            float u = level->u[0][here], v = level->u[1][here], wx[4], wy[4];
            float place_x = at_most(at_least((float)x + u, 1 - RING), (float)(width + 1));
            float place_y = at_most(at_least((float)y + v, 1 - RING), (float)(height + 1));
            float whole_x = floorf(place_x), whole_y = floorf(place_y);
            const float *corner = ring + ((int)whole_y + RING - 1) * stride + ((int)whole_x + RING - 1) * CHANNELS;
            four sum;
            cubic(place_x - whole_x, wx);
            cubic(place_y - whole_y, wy);
            for (int j = 0; j < 4; j++) {
                const four *taps = (const four *)(corner + j * stride);
                four row = ((taps[0] * wx[0] + taps[1] * wx[1]) + taps[2] * wx[2]) + taps[3] * wx[3];
                sum = j ? sum + row * wy[j] : row * wy[0];
            }
            level->wx[here] = sum[1];
            level->wy[here] = sum[2];
            level->rho[here] = ((sum[0] - sum[1] * u) - sum[2] * v) - reference[(ptrdiff_t)y * width + x];
        }
    }
}

/* v = u - clamp(rho(u) / |grad|^2, -l_t, l_t) grad, then u = v + theta div p; the squared change of u goes to `error`. */
INLINE void primal_row(const Level *level, const Params *params, int y) {
    ptrdiff_t start = y * level->stride;
    const float *restrict wx = level->wx + start, *restrict wy = level->wy + start, *restrict rho = level->rho + start;
    const float *restrict p11 = level->p[0][0] + start, *restrict p12 = level->p[0][1] + start;
    const float *restrict p21 = level->p[1][0] + start, *restrict p22 = level->p[1][1] + start;
    const float *restrict p12_above = p12 - level->stride, *restrict p22_above = p22 - level->stride;
    float *restrict u1 = level->u[0] + start, *restrict u2 = level->u[1] + start, *restrict error = level->error;
    float l_t = params->l_t, theta = params->theta;
    int width = level->width;
    SIMD
    for (int x = 0; x < width; x++) {
        float square = at_least(wx[x] * wx[x] + wy[x] * wy[x], 1.1920929e-07f);
        float residual = (rho[x] + wx[x] * u1[x]) + wy[x] * u2[x];
        float step = at_most(at_least(residual / square, -l_t), l_t);
        float div1 = (p11[x] - p11[x - 1]) + (p12[x] - p12_above[x]);
        float div2 = (p21[x] - p21[x - 1]) + (p22[x] - p22_above[x]);
        float new1 = (u1[x] - step * wx[x]) + theta * div1;
        float new2 = (u2[x] - step * wy[x]) + theta * div2;
        float change1 = new1 - u1[x], change2 = new2 - u2[x];
        error[x] = change1 * change1 + change2 * change2;
        u1[x] = new1;
        u2[x] = new2;
    }
    u1[width] = u1[width - 1]; /* no gradient across the right border */
    u2[width] = u2[width - 1];
}

/* q = (tau / theta) grad u;  p = (p + q) / (1 + |q|). `below` is the row itself at the lower border: no gradient across it. */
INLINE void dual_row(const Level *level, float taut, int y) {
    ptrdiff_t start = y * level->stride, below = y < level->height - 1 ? level->stride : 0;
    int width = level->width;
    for (int k = 0; k < 2; k++) {
        const float *u = level->u[k] + start, *under = u + below;
        float *restrict px = level->p[k][0] + start, *restrict py = level->p[k][1] + start;
        SIMD
        for (int x = 0; x < width; x++) {
            float qx = taut * (u[x + 1] - u[x]), qy = taut * (under[x] - u[x]);
            float scale = 1 / (1 + sqrtf(qx * qx + qy * qy));
            px[x] = (px[x] + qx) * scale;
            py[x] = (py[x] + qy) * scale;
        }
    }
}

/* One inner iteration; returns the sum of squared changes of u over all pixels. */
VARIANTS static double iterate(const Level *level, const Params *params) {
    double lanes[LANES] = {0}, total = 0;
    int full = (level->width + LANES - 1) / LANES * LANES; /* past the last pixel the errors are zero */
    for (int y = 0; y < level->height; y++) {
        primal_row(level, params, y);
        for (int x = 0; x < full; x += LANES)
            for (int k = 0; k < LANES; k++) lanes[k] += level->error[x + k];
        if (y) dual_row(level, params->taut, y - 1);
    }
    dual_row(level, params->taut, level->height - 1);
    for (int k = 0; k < LANES; k++) total += lanes[k];
    return total;
}

/* Sort each column of three or five rows: column[k] holds the k-th smallest of each. All windows that share a column share its order. */
INLINE void sort_columns_3(int width, const float *const *rows, float *const *column) {
    const float *restrict r0 = rows[0], *restrict r1 = rows[1], *restrict r2 = rows[2];
    float *restrict c0 = column[0], *restrict c1 = column[1], *restrict c2 = column[2];
    SIMD
    for (int x = 0; x < width; x++) {
        float a = r0[x], b = r1[x], c = r2[x], t;
        SORT(a, b), SORT(b, c), SORT(a, b);
        c0[x] = a, c1[x] = b, c2[x] = c;
    }
}

INLINE void sort_columns_5(int width, const float *const *rows, float *const *column) {
    const float *restrict r0 = rows[0], *restrict r1 = rows[1], *restrict r2 = rows[2], *restrict r3 = rows[3], *restrict r4 = rows[4];
    float *restrict c0 = column[0], *restrict c1 = column[1], *restrict c2 = column[2], *restrict c3 = column[3], *restrict c4 = column[4];
    SIMD
    for (int x = 0; x < width; x++) {
        float a = r0[x], b = r1[x], c = r2[x], d = r3[x], e = r4[x], t;
        SORT_5(a, b, c, d, e);
        c0[x] = a, c1[x] = b, c2[x] = c, c3[x] = d, c4[x] = e;
    }
}

/* The median of nine numbers in three sorted columns: of the largest minimum, the median median and the smallest maximum. */
INLINE void median_row_3(int width, float *const *column, float *restrict out) {
    const float *restrict low = column[0], *restrict middle = column[1], *restrict high = column[2];
    SIMD
    for (int x = 0; x < width; x++) {
        float a = at_least(at_least(low[x - 1], low[x]), low[x + 1]), d = middle[x - 1], e = middle[x], f = middle[x + 1];
        float c = at_most(at_most(high[x - 1], high[x]), high[x + 1]), t;
        SORT(d, e), SORT(e, f), SORT(d, e);
        SORT(a, e), SORT(e, c), SORT(a, e);
        out[x] = e;
    }
}

/* The median of 25 numbers in five sorted columns. With the rows sorted too, element (i, j) has (i + 1)(j + 1) - 1 numbers below it and
 * (5 - i)(5 - j) - 1 above it in order, so only the three antidiagonals in the middle can be the median, the thirteen that remain. Of the
 * four on the first, at least seven of the thirteen are no less than each but the largest; of the third likewise with the smallest. */
INLINE void median_row_5(int width, float *const *column, float *restrict out) {
    const float *restrict c0 = column[0], *restrict c1 = column[1], *restrict c2 = column[2], *restrict c3 = column[3],
                         *restrict c4 = column[4];
    SIMD
    for (int x = 0; x < width; x++) {
        float a0 = c0[x - 2], a1 = c0[x - 1], a2 = c0[x], a3 = c0[x + 1], a4 = c0[x + 2];
        float b0 = c1[x - 2], b1 = c1[x - 1], b2 = c1[x], b3 = c1[x + 1], b4 = c1[x + 2];
        float d0 = c2[x - 2], d1 = c2[x - 1], d2 = c2[x], d3 = c2[x + 1], d4 = c2[x + 2];
        float e0 = c3[x - 2], e1 = c3[x - 1], e2 = c3[x], e3 = c3[x + 1], e4 = c3[x + 2];
        float f0 = c4[x - 2], f1 = c4[x - 1], f2 = c4[x], f3 = c4[x + 1], f4 = c4[x + 2], t;
        SORT_5(a0, a1, a2, a3, a4), SORT_5(b0, b1, b2, b3, b4), SORT_5(d0, d1, d2, d3, d4);
        SORT_5(e0, e1, e2, e3, e4), SORT_5(f0, f1, f2, f3, f4);
        float low = at_least(at_least(a3, b2), at_least(d1, e0)), high = at_most(at_most(b4, d3), at_most(e2, f1));
        SORT(low, high), SORT(b3, d2), SORT(e1, f0), SORT(low, b3), SORT(a4, e1), SORT(d2, high), SORT(low, a4), SORT(b3, f0);
        SORT(d2, e1), SORT(a4, b3), SORT(e1, high), SORT(b3, d2), SORT(e1, f0), SORT(d2, e1);
        out[x] = d2;
    }
}

INLINE void repeat_border(int width, float *row) {
    for (int x = 1; x <= 2; x++) row[-x] = row[0], row[width - 1 + x] = row[width - 1];
}

/* Medians of size x size pixels of both components of u; the border is repeated. */
VARIANTS static void median(Level *level, int size) {
    const float *rows[5];
    for (int k = 0; k < 2; k++) {
        float *from = level->u[k], *to = level->spare;
        for (int y = 0; y < level->height; y++) {
            for (int i = 0; i < size; i++) {
                int row = y + i - size / 2;
                rows[i] = from + level->stride * (row < 0 ? 0 : row < level->height ? row : level->height - 1);
            }
            if (size == 3)
                sort_columns_3(level->width, rows, level->column);
            else
                sort_columns_5(level->width, rows, level->column);
            for (int i = 0; i < size; i++) repeat_border(level->width, level->column[i]);
            if (size == 3)
                median_row_3(level->width, level->column, to + y * level->stride);
            else
                median_row_5(level->width, level->column, to + y * level->stride);
        }
        level->u[k] = to;
        level->spare = from;
    }
}

static void solve_level(Level *level, const Params *params, const float *reference, const float *ring) {
    double enough = params->epsilon * params->epsilon * level->height * level->width;
    for (int k = 0; k < params->warps; k++) {
        int going = 1;
        warp(level, reference, ring);
        for (int outer = 0; going && outer < params->outer; outer++) {
            if (params->median > 1) median(level, params->median);
            for (int inner = 0; going && inner < params->inner; inner++) going = iterate(level, params) > enough;
        }
    }
}

/* Floats of working memory that `tvl1_pair` needs; the levels' sizes are finest first. */
size_t tvl1_work_floats(int levels, const int *heights, const int *widths) {
    size_t floats = 2 * level_floats(heights[0], widths[0]) + ring_floats(heights[0], widths[0]);
    floats += (size_t)heights[0] * widths[0];
    for (int k = 1; k < levels; k++) floats += 2 * (size_t)heights[k] * widths[k];
    return floats + 4 * LANES;
}

/* Flow from `first` to `second` (float32 [H, W], 0 to 255) as two planes [H, W]. `work` is aligned to 64 bytes. */
void tvl1_pair(const float *first, const float *second, int levels, const int *heights, const int *widths, const Params *params, float *work,
               float *flow_x, float *flow_y) {
    enum { MOST = 64 };
    const float *images[2][MOST] = {{first}, {second}};
    double inverse = 1 / params->step;
    float *rings = take(&work, (ring_floats(heights[0], widths[0]) + LANES - 1) / LANES * LANES);
    float *spaces[2] = {take(&work, level_floats(heights[0], widths[0])), take(&work, level_floats(heights[0], widths[0]))};
    float *half = take(&work, (size_t)heights[0] * widths[0]);
    for (int k = 1; k < levels; k++) {
        for (int i = 0; i < 2; i++) {
            float *smaller = take(&work, (size_t)heights[k] * widths[k]);
            resize(images[i][k - 1], widths[k - 1], heights[k - 1], widths[k - 1], smaller, widths[k], heights[k], widths[k], inverse, inverse,
                   1, half);
            images[i][k] = smaller;
        }
    }
    Level level = {0};
    for (int k = levels - 1; k >= 0; k--) {
        Level coarser = level;
        level = lay_out(spaces[k & 1], heights[k], widths[k]);
        for (int i = 0; i < 2 && k < levels - 1; i++)
            resize(coarser.u[i], coarser.stride, coarser.height, coarser.width, level.u[i], level.stride, level.height, level.width,
                   (double)coarser.height / level.height, (double)coarser.width / level.width, (float)inverse, half);
        interleave(images[1][k], heights[k], widths[k], rings);
        solve_level(&level, params, images[0][k], rings);
    }
    for (int y = 0; y < level.height; y++) {
        memcpy(flow_x + (ptrdiff_t)y * level.width, level.u[0] + y * level.stride, sizeof(float) * level.width);
        memcpy(flow_y + (ptrdiff_t)y * level.width, level.u[1] + y * level.stride, sizeof(float) * level.width);
    }
}
