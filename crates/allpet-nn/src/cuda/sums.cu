/* Sums of floats in a fixed order. */

/* ---- sums of planes: [plane][pixel] -> [plane] ---- */

typedef struct {
    const STORE *x;
    float *sums;
    long long pixels;
} PlaneArgs;

DEVICE void plane_sum(const PlaneArgs *a, OneSum *shared, Thread t) {
    const STORE *x = a->x + t.bx * a->pixels;
    float sum = 0.0f;
    for (long long i = index_of(t); i < a->pixels; i += THREADS) sum += load(x[i]);
    shared->sums[0][index_of(t)] = sum;
}

KERNEL(plane_sums, PlaneArgs) {
    BLOCK(OneSum, Nothing)
    PHASE(plane_sum(a, shared, t);)
    SUM_OVER_BLOCK(shared->sums, 1)
    PHASE(if (index_of(t) == 0) a->sums[t.bx] = shared->sums[0][0];)
    END
}

/* ---- sums of parts: [part][element] -> [element], on top of what is there where `again` ---- */

typedef struct {
    const float *parts;
    float *sums;
    long long length;
    int count, again;
} PartsArgs;

DEVICE void parts_sum(const PartsArgs *a, Thread t) {
    const long long i = (long long)t.bx * THREADS + index_of(t);
    if (i >= a->length) return;
    float sum = a->again ? a->sums[i] : 0.0f;
    for (int part = 0; part < a->count; ++part) sum += a->parts[part * a->length + i];
    a->sums[i] = sum;
}

ONE_PHASE(sum_parts, PartsArgs, parts_sum)
