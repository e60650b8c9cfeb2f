/* Softmax along rows of scores, and its gradient; products of matrices stand before and after. A row has the LANES
 * threads of one y. Results may lie where the floats they come from do: each thread writes only what it alone has read. */

typedef struct {
    const float *scores; /* [row][column] */
    STORE *weights;
    long long rows;
    int columns;
} SoftmaxArgs;

typedef struct {
    Softmax lanes[ROWS][LANES + 1];
} SoftmaxShared;

DEVICE void softmax_lane(const SoftmaxArgs *a, SoftmaxShared *shared, Thread t) {
    const long long row = (long long)t.bx * ROWS + t.y;
    Softmax mine = softmax_begin();
    if (row < a->rows)
        for (int c = t.x; c < a->columns; c += LANES) softmax_add(&mine, a->scores[row * a->columns + c]);
    shared->lanes[t.y][t.x] = mine;
}

DEVICE void softmax_write(const SoftmaxArgs *a, const SoftmaxShared *shared, Thread t) {
    const long long row = (long long)t.bx * ROWS + t.y;
    if (row >= a->rows) return;
    const Softmax all = softmax_of_lanes(shared->lanes[t.y]);
    const float inverse = 1.0f / all.sum;
    for (int c = t.x; c < a->columns; c += LANES) {
        const float score = a->scores[row * a->columns + c];
        a->weights[row * a->columns + c] = store(expf(score - all.largest) * inverse);
    }
}

KERNEL(softmax_rows, SoftmaxArgs) {
    BLOCK(SoftmaxShared, Nothing)
    PHASE(softmax_lane(a, shared, t);)
    PHASE(softmax_write(a, shared, t);)
    END
}

/* ---- dS = scale * P*(dP - sum of P*dP over the row) ---- */

typedef struct {
    const STORE *weights;
    const float *dweights;
    STORE *dscores;
    long long rows;
    int columns;
    float scale;
} SoftmaxSlopesArgs;

typedef struct {
    float lanes[ROWS][LANES + 1];
} SlopesShared;

DEVICE void slopes_lane(const SoftmaxSlopesArgs *a, SlopesShared *shared, Thread t) {
    const long long row = (long long)t.bx * ROWS + t.y;
    float sum = 0.0f;
    if (row < a->rows)
        for (int c = t.x; c < a->columns; c += LANES)
            sum += load(a->weights[row * a->columns + c]) * a->dweights[row * a->columns + c];
    shared->lanes[t.y][t.x] = sum;
}

DEVICE void slopes_write(const SoftmaxSlopesArgs *a, const SlopesShared *shared, Thread t) {
    const long long row = (long long)t.bx * ROWS + t.y;
    if (row >= a->rows) return;
    const float dot = sum_of_lanes(shared->lanes[t.y]);
    for (int c = t.x; c < a->columns; c += LANES) {
        const long long at = row * a->columns + c;
        a->dscores[at] = store(load(a->weights[at]) * a->scale * (a->dweights[at] - dot));
    }
}

KERNEL(softmax_slopes, SoftmaxSlopesArgs) {
    BLOCK(SlopesShared, Nothing)
    PHASE(slopes_lane(a, shared, t);)
    PHASE(slopes_write(a, shared, t);)
    END
}
