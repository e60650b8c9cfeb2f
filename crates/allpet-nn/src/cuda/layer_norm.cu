/* LayerNorm over the last axis and its gradient: a row has the LANES threads of one y. */

typedef struct {
    const STORE *x;
    const float *weight, *bias;
    STORE *y;
    long long rows;
    int channels;
    float epsilon;
} LayerArgs;

typedef struct {
    float lanes[2][ROWS][LANES + 1];
} LayerShared;

typedef struct {
    float mean, inverse;
} LayerState;

DEVICE long long row_of(Thread t) {
    return (long long)t.bx * ROWS + t.y;
}

DEVICE void layer_sum(const STORE *x, long long rows, int channels, LayerShared *shared, Thread t) {
    const long long row = row_of(t);
    float sum = 0.0f;
    if (row < rows)
        for (int c = t.x; c < channels; c += LANES) sum += load(x[row * channels + c]);
    shared->lanes[0][t.y][t.x] = sum;
}

DEVICE void layer_square(const STORE *x, long long rows, int channels, LayerShared *shared, float mean, Thread t) {
    const long long row = row_of(t);
    float sum = 0.0f;
    if (row < rows)
        for (int c = t.x; c < channels; c += LANES) {
            const float far = load(x[row * channels + c]) - mean;
            sum += far * far;
        }
    shared->lanes[1][t.y][t.x] = sum;
}

/* Mean and 1/sd of this thread's row. */
#define LAYER_MOMENTS                                                                                 \
    PHASE(layer_sum(a->x, a->rows, a->channels, shared, t);)                                          \
    PHASE(me->mean = sum_of_lanes(shared->lanes[0][t.y]) / (float)a->channels;                        \
          layer_square(a->x, a->rows, a->channels, shared, me->mean, t);)                             \
    PHASE(me->inverse = 1.0f / sqrtf(sum_of_lanes(shared->lanes[1][t.y]) / (float)a->channels + a->epsilon);)

DEVICE void layer_apply(const LayerArgs *a, const LayerState *me, Thread t) {
    const long long row = row_of(t);
    if (row >= a->rows) return;
    for (int c = t.x; c < a->channels; c += LANES) {
        const long long at = row * a->channels + c;
        a->y[at] = store((load(a->x[at]) - me->mean) * me->inverse * a->weight[c] + a->bias[c]);
    }
}

KERNEL(layer_forward, LayerArgs) {
    BLOCK(LayerShared, LayerState)
    LAYER_MOMENTS
    PHASE(layer_apply(a, me, t);)
    END
}

/* ---- gradient: with g = dy*weight, dx = (g - mean(g) - x^*mean(g*x^))/sd; `statistics` [row][2] ---- */

typedef struct {
    const STORE *x, *dy;
    const float *weight;
    STORE *dx;
    float *statistics;
    long long rows;
    int channels;
    float epsilon;
} LayerInputArgs;

DEVICE void layer_slopes(const LayerInputArgs *a, LayerShared *shared, const LayerState *me, Thread t) {
    const long long row = row_of(t);
    float sum = 0.0f, with_hat = 0.0f;
    if (row < a->rows)
        for (int c = t.x; c < a->channels; c += LANES) {
            const long long at = row * a->channels + c;
            const float g = load(a->dy[at]) * a->weight[c];
            sum += g;
            with_hat += g * (load(a->x[at]) - me->mean) * me->inverse;
        }
    shared->lanes[0][t.y][t.x] = sum;
    shared->lanes[1][t.y][t.x] = with_hat;
}

DEVICE void layer_input(const LayerInputArgs *a, const LayerShared *shared, const LayerState *me, Thread t) {
    const long long row = row_of(t);
    const float mean_g = sum_of_lanes(shared->lanes[0][t.y]) / (float)a->channels;
    const float mean_gx = sum_of_lanes(shared->lanes[1][t.y]) / (float)a->channels;
    if (row >= a->rows) return;
    for (int c = t.x; c < a->channels; c += LANES) {
        const long long at = row * a->channels + c;
        const float g = load(a->dy[at]) * a->weight[c], hat = (load(a->x[at]) - me->mean) * me->inverse;
        a->dx[at] = store((g - mean_g - hat * mean_gx) * me->inverse);
    }
    if (t.x == 0) {
        a->statistics[2 * row] = me->mean;
        a->statistics[2 * row + 1] = me->inverse;
    }
}

KERNEL(layer_backward, LayerInputArgs) {
    BLOCK(LayerShared, LayerState)
    LAYER_MOMENTS
    PHASE(layer_slopes(a, shared, me, t);)
    PHASE(layer_input(a, shared, me, t);)
    END
}

/* ---- dweight and dbias of some rows together: `parts` [chunk][2][channel] ---- */

typedef struct {
    const STORE *x, *dy;
    const float *statistics;
    float *parts;
    long long rows, per_chunk;
    int channels;
    int across; /* blocks over the channels */
} LayerColumnsArgs;

DEVICE void layer_columns_sum(const LayerColumnsArgs *a, LayerShared *shared, Thread t) {
    const int c = t.bx % a->across * LANES + t.x;
    const long long first = t.bx / a->across * a->per_chunk;
    const long long end = first + a->per_chunk < a->rows ? first + a->per_chunk : a->rows;
    float with_hat = 0.0f, sum = 0.0f;
    if (c < a->channels)
        for (long long row = first + t.y; row < end; row += ROWS) {
            const long long at = row * a->channels + c;
            const float dy = load(a->dy[at]);
            with_hat += dy * (load(a->x[at]) - a->statistics[2 * row]) * a->statistics[2 * row + 1];
            sum += dy;
        }
    shared->lanes[0][t.y][t.x] = with_hat;
    shared->lanes[1][t.y][t.x] = sum;
}

DEVICE void layer_columns_write(const LayerColumnsArgs *a, const LayerShared *shared, Thread t) {
    const int c = t.bx % a->across * LANES + t.x;
    if (t.y >= 2 || c >= a->channels) return;
    float sum = 0.0f;
    for (int row = 0; row < ROWS; ++row) sum += shared->lanes[t.y][row][t.x];
    a->parts[((long long)(t.bx / a->across) * 2 + t.y) * a->channels + c] = sum;
}

KERNEL(layer_columns, LayerColumnsArgs) {
    BLOCK(LayerShared, Nothing)
    PHASE(layer_columns_sum(a, shared, t);)
    PHASE(layer_columns_write(a, shared, t);)
    END
}
