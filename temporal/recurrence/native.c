/* Element-wise parts of recurrences over time, forward and backward: the equations of equations.py with everything between two matrix
 * products in one sweep. cells.h holds them for one type of numbers; here they are made for float32, float64, and bfloat16.
 *
 * Rows (a sequence of a seed) are shared among the threads of torch's own OpenMP pool, whose GOMP_parallel the caller passes: a second pool
 * would fight for the processors with the first, whose threads spin for a while after each matrix product. A row is one thread's whole
 * work, so no result depends on the number of threads.
 */
#include <stdint.h>
#include <string.h>

#if defined(RECURRENCE_VARIANTS) && defined(__x86_64__) /* the loader takes the variant that the processor can run */
#define VARIANTS __attribute__((target_clones("arch=x86-64-v3", "default")))
#else
#define VARIANTS
#endif
#define SIMD _Pragma("omp simd")
#define INLINE static inline __attribute__((always_inline))
#define ALONE 16384 /* numbers below which waking other threads takes longer than they save */

typedef void (*Parallel)(void (*)(void *), void *, unsigned, unsigned);
typedef void (*Rows)(const void *, long, long, long);

/* All tensors are contiguous: [S, T, B, columns] with S seeds, T steps, B sequences; NULL: there is none. */
typedef struct {
    long seeds, steps, batch, hidden;
    int threads;
    Parallel parallel;
    long columns;    /* blocks of `hidden` in a row of products */
    int squash;      /* SRU: g is tanh, else the identity */
    double scale;    /* SRU: alpha of the highway term */
    void *gates;     /* [S, T, B, columns H], products of the input; LSTM, GRU: afterwards the gates */
    void *recurrent; /* [S, B, gates H], products of the memory of the step before */
    void *kept;      /* GRU: [S, T, B, H], those of n with their bias */
    void *bias_x, *bias_h; /* [S, gates H] */
    void *peephole;        /* SRU: [S, 2 H] */
    void *x;               /* SRU: [S, T, B, H], highway */
    void *zeros;           /* [H] */
    void *cell, *memory;   /* [S, T, B, H] */
    void *low;             /* [S, T, B, H], the memory in the products' type, where that is another */
    void *to_memory;       /* [S, T, B, H] gradients from here on */
    void *to_gates;        /* [S, T, B, columns H] */
    void *carried;         /* [S, B, H] products: what the step after gives to this memory */
    void *to_cell;         /* [S, B, H] */
    void *to_x;            /* SRU: [S, T, B, H] */
    void *to_bias;         /* [S, B, gates H] */
    void *to_peephole;     /* SRU: [S, B, 2 H] */
} Problem;

typedef struct {
    Rows rows;
    const void *problem;
    long t, count, share, next;
} Job;

static void take_rows(void *data) {
    Job *job = data;
    for (;;) {
        long first = __atomic_fetch_add(&job->next, job->share, __ATOMIC_RELAXED);
        if (first >= job->count) return;
        long last = first + job->share;
        job->rows(job->problem, job->t, first, last < job->count ? last : job->count);
    }
}

static void each_row(Rows rows, const Problem *p, long t, long numbers) {
    long count = p->seeds * p->batch;
    if (p->threads < 2 || !p->parallel || count < 2 || numbers < ALONE) {
        rows(p, t, 0, count);
        return;
    }
    long share = (count + 4 * p->threads - 1) / (4 * p->threads);
    Job job = {rows, p, t, count, share, 0};
    p->parallel(take_rows, &job, (unsigned)p->threads, 0);
}

INLINE float as_float(uint32_t bits) {
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
INLINE uint32_t bits_of_float(float value) {
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}
INLINE double as_double(uint64_t bits) {
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
INLINE uint64_t bits_of_double(double value) {
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* e^y - 1 with y = n ln 2 + r: 2^n (e^r - 1) + (2^n - 1), exact near 0; adding `magic` rounds to whole numbers, which are then its last
 * bits. The Taylor series is good to half a unit in the last place for |r| <= ln 2 / 2. */
INLINE float less_one_float(float y) {
    const float magic = 12582912.0f; /* 1.5 2^23 */
    y = y > 88.0f ? 88.0f : y;
    y = y < -87.0f ? -87.0f : y;
    float shifted = y * 1.44269504f + magic;
    float n = shifted - magic;
    float r = y - n * 0.693145751953125f;
    r = r - n * 1.42860682030941723e-6f;
    float q = 1.0f / 5040;
    q = q * r + 1.0f / 720;
    q = q * r + 1.0f / 120;
    q = q * r + 1.0f / 24;
    q = q * r + 1.0f / 6;
    q = q * r + 0.5f;
    q = q * r * r + r;
    float power = as_float((bits_of_float(shifted) + 127) << 23);
    return power * q + (power - 1.0f);
}

INLINE double less_one_double(double y) {
    const double magic = 6755399441055744.0; /* 1.5 2^52 */
    y = y > 708.0 ? 708.0 : y;
    y = y < -708.0 ? -708.0 : y;
    double shifted = y * 1.4426950408889634074 + magic;
    double n = shifted - magic;
    double r = y - n * 6.93147180369123816490e-01;
    r = r - n * 1.90821492927058770002e-10;
    double q = 1.0 / 6227020800;
    q = q * r + 1.0 / 479001600;
    q = q * r + 1.0 / 39916800;
    q = q * r + 1.0 / 3628800;
    q = q * r + 1.0 / 362880;
    q = q * r + 1.0 / 40320;
    q = q * r + 1.0 / 5040;
    q = q * r + 1.0 / 720;
    q = q * r + 1.0 / 120;
    q = q * r + 1.0 / 24;
    q = q * r + 1.0 / 6;
    q = q * r + 0.5;
    q = q * r * r + r;
    double power = as_double((bits_of_double(shifted) + 1023) << 52);
    return power * q + (power - 1.0);
}

INLINE float from_bfloat16(uint16_t value) { return as_float((uint32_t)value << 16); }
INLINE uint16_t to_bfloat16(float value) { /* round to nearest, ties to even; a number that is none stays none */
    uint32_t bits = bits_of_float(value);
    uint32_t rounded = (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
    return (uint16_t)(value == value ? rounded : 0x7fc0);
}

#define NAME(what) what##_float32
#define REAL float
#define STORED float
#define GET(number) (number)
#define PUT(number) (number)
#define LESS_ONE less_one_float
#include "cells.h"

#define NAME(what) what##_float64
#define REAL double
#define STORED double
#define GET(number) (number)
#define PUT(number) (number)
#define LESS_ONE less_one_double
#include "cells.h"

#define NAME(what) what##_bfloat16
#define REAL float
#define STORED uint16_t
#define GET(number) from_bfloat16(number)
#define PUT(number) to_bfloat16(number)
#define LESS_ONE less_one_float
#include "cells.h"
