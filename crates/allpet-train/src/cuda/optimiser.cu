/* AdamW with the moving average in one pass, and sums of squares in a fixed order. */

/* ---- one update of a parameter; the formulas stand beside the CPU's ---- */

typedef struct {
    float *w, *m, *v, *average;
    const float *gradient; /* zeros where there is none */
    long long length;
    float factor, beta1, rest1, beta2, rest2, keep, step, correction, epsilon, decay, rest;
} UpdateArgs;

enum { EACH = 4 };

DEVICE void update_some(const UpdateArgs *a, Thread t) {
    for (int e = 0; e < EACH; ++e) {
        const long long i = ((long long)t.bx * EACH + e) * THREADS + index_of(t);
        if (i >= a->length) return;
        const float g = a->gradient ? a->gradient[i] * a->factor : 0.0f;
        const float m = a->beta1 * a->m[i] + a->rest1 * g;
        const float v = a->beta2 * a->v[i] + a->rest2 * g * g;
        const float w = a->keep * a->w[i] - a->step * m / (sqrtf(v * a->correction) + a->epsilon);
        a->m[i] = m;
        a->v[i] = v;
        a->w[i] = w;
        a->average[i] = a->decay * a->average[i] + a->rest * w;
    }
}

ONE_PHASE(adamw, UpdateArgs, update_some)

/* ---- sums of squares of SPAN elements each ---- */

enum { SPAN = 16384 };

typedef struct {
    const float *x;
    double *parts;
    long long length;
} SquaresArgs;

typedef struct {
    double sums[THREADS];
} SquaresShared;

DEVICE void squares_sum(const SquaresArgs *a, SquaresShared *shared, Thread t) {
    const long long first = (long long)t.bx * SPAN;
    const long long end = first + SPAN < a->length ? first + SPAN : a->length;
    double sum = 0.0;
    for (long long i = first + index_of(t); i < end; i += THREADS) sum += (double)a->x[i] * (double)a->x[i];
    shared->sums[index_of(t)] = sum;
}

KERNEL(squares, SquaresArgs) {
    BLOCK(SquaresShared, Nothing)
    PHASE(squares_sum(a, shared, t);)
    for (int half = THREADS / 2; half > 0; half /= 2) {
        PHASE(if (index_of(t) < half) shared->sums[index_of(t)] += shared->sums[index_of(t) + half];)
    }
    PHASE(if (index_of(t) == 0) a->parts[t.bx] = shared->sums[0];)
    END
}
