/* The small matrices of attention between channels, [sample][head][d][d]; products of matrices stand before and after.
 * `lengths` and `along` are [sample][2C]: the channels of the queries, then those of the keys. */

typedef struct {
    int heads, d;
} Heads;

/* Where the query row, and the key column, of a head is in `lengths`. */
DEVICE long long query_of(const Heads *s, long long head, int i) {
    return head / s->heads * 2 * s->heads * s->d + head % s->heads * s->d + i;
}
DEVICE long long key_of(const Heads *s, long long head, int j) {
    return query_of(s, head, j) + s->heads * s->d;
}

/* ---- lengths of the rows of queries and keys ---- */

typedef struct {
    const STORE *qkv;
    float *lengths;
    long long pixels;
    int channels; /* C */
    float least;
} LengthsArgs;

DEVICE void lengths_sum(const LengthsArgs *a, OneSum *shared, Thread t) {
    const long long sample = t.bx / (2 * a->channels), row = sample * 3 * a->channels + t.bx % (2 * a->channels);
    const STORE *x = a->qkv + row * a->pixels;
    float sum = 0.0f;
    for (long long i = index_of(t); i < a->pixels; i += THREADS) sum += load(x[i]) * load(x[i]);
    shared->sums[0][index_of(t)] = sum;
}

KERNEL(row_lengths, LengthsArgs) {
    BLOCK(OneSum, Nothing)
    PHASE(lengths_sum(a, shared, t);)
    SUM_OVER_BLOCK(shared->sums, 1)
    PHASE(if (index_of(t) == 0) a->lengths[t.bx] = fmaxf(sqrtf(shared->sums[0][0]), a->least);)
    END
}

/* ---- products of rows to cosines, in place, and their softmax ---- */

typedef struct {
    float *cosines;
    const float *lengths, *temperature;
    STORE *weights;
    long long rows; /* of all heads */
    Heads shape;
} ChannelArgs;

typedef struct {
    Softmax lanes[ROWS][LANES + 1];
} ChannelShared;

DEVICE void channel_lane(const ChannelArgs *a, ChannelShared *shared, Thread t) {
    const Heads *s = &a->shape;
    const long long row = (long long)t.bx * ROWS + t.y, head = row / s->d;
    Softmax mine = softmax_begin();
    if (row < a->rows) {
        const float length = a->lengths[query_of(s, head, (int)(row % s->d))];
        const float temperature = a->temperature[head % s->heads];
        for (int j = t.x; j < s->d; j += LANES) {
            float *cosine = a->cosines + row * s->d + j;
            *cosine /= length * a->lengths[key_of(s, head, j)];
            softmax_add(&mine, temperature * *cosine);
        }
    }
    shared->lanes[t.y][t.x] = mine;
}

DEVICE void channel_write(const ChannelArgs *a, const ChannelShared *shared, Thread t) {
    const Heads *s = &a->shape;
    const long long row = (long long)t.bx * ROWS + t.y;
    if (row >= a->rows) return;
    const Softmax all = softmax_of_lanes(shared->lanes[t.y]);
    const float temperature = a->temperature[row / s->d % s->heads], inverse = 1.0f / all.sum;
    for (int j = t.x; j < s->d; j += LANES) {
        const long long at = row * s->d + j;
        a->weights[at] = store(expf(temperature * a->cosines[at] - all.largest) * inverse);
    }
}

KERNEL(channel_weights, ChannelArgs) {
    BLOCK(ChannelShared, Nothing)
    PHASE(channel_lane(a, shared, t);)
    PHASE(channel_write(a, shared, t);)
    END
}

/* ---- gradient of a row: dZ = P*(dP - sum P*dP), G = t*dZ; factors G/(|q||k|); G*S in place of dP ---- */

typedef struct {
    const float *cosines, *lengths, *temperature;
    const STORE *weights;
    float *dweights; /* dP, then G*S */
    STORE *factors;
    float *along;   /* sum of G*S over the row / |q|^2 */
    float *heat;    /* [row]: sum of dZ*S */
    long long rows;
    Heads shape;
} ChannelRowsArgs;

typedef struct {
    float lanes[ROWS][LANES + 1];
} ChannelLanes;

DEVICE void channel_dot(const ChannelRowsArgs *a, ChannelLanes *shared, Thread t) {
    const int d = a->shape.d;
    const long long row = (long long)t.bx * ROWS + t.y;
    float sum = 0.0f;
    if (row < a->rows)
        for (int j = t.x; j < d; j += LANES) sum += load(a->weights[row * d + j]) * a->dweights[row * d + j];
    shared->lanes[t.y][t.x] = sum;
}

typedef struct {
    float dot;
} ChannelState;

DEVICE void channel_factors(const ChannelRowsArgs *a, ChannelLanes *shared, const ChannelState *me, Thread t) {
    const Heads *s = &a->shape;
    const long long row = (long long)t.bx * ROWS + t.y, head = row / s->d;
    float sum = 0.0f;
    if (row < a->rows) {
        const float length = a->lengths[query_of(s, head, (int)(row % s->d))];
        const float temperature = a->temperature[head % s->heads];
        for (int j = t.x; j < s->d; j += LANES) {
            const long long at = row * s->d + j;
            const float dz = load(a->weights[at]) * (a->dweights[at] - me->dot);
            sum += dz * a->cosines[at];
            a->factors[at] = store(temperature * dz / (length * a->lengths[key_of(s, head, j)]));
            a->dweights[at] = temperature * dz * a->cosines[at];
        }
    }
    shared->lanes[t.y][t.x] = sum;
}

DEVICE void channel_finish(const ChannelRowsArgs *a, const ChannelLanes *shared, Thread t) {
    const Heads *s = &a->shape;
    const long long row = (long long)t.bx * ROWS + t.y, head = row / s->d;
    if (row >= a->rows || t.x > 0) return;
    const long long query = query_of(s, head, (int)(row % s->d));
    const float sum = sum_of_lanes(shared->lanes[t.y]), length = a->lengths[query];
    a->heat[row] = sum;
    a->along[query] = a->temperature[head % s->heads] * sum / (length * length);
}

KERNEL(channel_rows, ChannelRowsArgs) {
    BLOCK(ChannelLanes, ChannelState)
    PHASE(channel_dot(a, shared, t);)
    PHASE(me->dot = sum_of_lanes(shared->lanes[t.y]);)
    PHASE(channel_factors(a, shared, me, t);)
    PHASE(channel_finish(a, shared, t);)
    END
}

/* ---- of every head: sums of G*S over the columns / |k|^2, and the temperature's gradient ---- */

typedef struct {
    const float *lengths, *slopes, *heat; /* slopes: G*S */
    float *along, *dtemperature;          /* [sample][2C], [sample][head] */
    Heads shape;
} ChannelColumnsArgs;

DEVICE void channel_column(const ChannelColumnsArgs *a, OneSum *shared, Thread t) {
    const Heads *s = &a->shape;
    float heat = 0.0f;
    for (int j = index_of(t); j < s->d; j += THREADS) {
        const long long key = key_of(s, t.bx, j);
        const float *slopes = a->slopes + (long long)t.bx * s->d * s->d + j;
        float sum = 0.0f;
        for (int i = 0; i < s->d; ++i) sum += slopes[(long long)i * s->d];
        a->along[key] = sum / (a->lengths[key] * a->lengths[key]);
        heat += a->heat[(long long)t.bx * s->d + j];
    }
    shared->sums[0][index_of(t)] = heat;
}

KERNEL(channel_columns, ChannelColumnsArgs) {
    BLOCK(OneSum, Nothing)
    PHASE(channel_column(a, shared, t);)
    SUM_OVER_BLOCK(shared->sums, 1)
    PHASE(if (index_of(t) == 0) a->dtemperature[t.bx] = shared->sums[0][0];)
    END
}

/* ---- -along*x into the gradients of queries and keys ---- */

typedef struct {
    const STORE *qkv;
    const float *along;
    STORE *dqkv;
    long long length, pixels; /* of the queries and keys of all samples; of a row */
    int channels;
} AlongArgs;

DEVICE void along_some(const AlongArgs *a, Thread t) {
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i >= a->length) return;
        const long long row = i / a->pixels, sample = row / (2 * a->channels);
        const long long at = i + sample * a->channels * a->pixels;
        a->dqkv[at] = store(-a->along[row] * load(a->qkv[at]));
    }
}

ONE_PHASE(take_along, AlongArgs, along_some)
