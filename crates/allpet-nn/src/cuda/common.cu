/* What several units need: elements of a thread, and sums in a fixed order, so that nothing depends on the schedule. */

enum {
    EACH = 4, /* elements of a thread where each is computed alone */
    LANES = 32,
    ROWS = 8 /* rows of a block where each row has the LANES threads of one y */
};

/* Row k of `sums` [rows][THREADS] ends in its first element, as a tree. */
#define SUM_OVER_BLOCK(sums, rows)                                                          \
    for (int half = THREADS / 2; half > 0; half /= 2) {                                     \
        PHASE(if (index_of(t) < half) for (int k = 0; k < (rows); ++k)(sums)[k][index_of(t)] += \
              (sums)[k][index_of(t) + half];)                                               \
    }

typedef struct {
    float sums[1][THREADS];
} OneSum;
typedef struct {
    float sums[2][THREADS];
} TwoSums;

/* Of the element `e` of this thread, EACH * THREADS to a block. */
DEVICE long long place(Thread t, int e) {
    return ((long long)t.bx * EACH + e) * THREADS + index_of(t);
}

DEVICE float sum_of_lanes(const float *lanes) {
    float sum = 0.0f;
    for (int i = 0; i < LANES; ++i) sum += lanes[i];
    return sum;
}

/* The largest value and the sum of the exponentials that are left above it, as they come (Milakov & Gimelshein 2018). */
typedef struct {
    float largest, sum;
} Softmax;

DEVICE Softmax softmax_begin(void) {
    const Softmax none = {-3.402823466e38f, 0.0f};
    return none;
}

DEVICE void softmax_add(Softmax *s, float value) {
    if (value > s->largest) {
        s->sum = s->sum * expf(s->largest - value) + 1.0f;
        s->largest = value;
    } else {
        s->sum += expf(value - s->largest);
    }
}

DEVICE Softmax softmax_of_lanes(const Softmax *lanes) {
    Softmax all = softmax_begin();
    for (int i = 0; i < LANES; ++i) all.largest = fmaxf(all.largest, lanes[i].largest);
    for (int i = 0; i < LANES; ++i) all.sum += lanes[i].sum * expf(lanes[i].largest - all.largest);
    return all;
}
