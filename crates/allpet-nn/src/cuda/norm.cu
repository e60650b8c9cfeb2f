/* GroupNorm with a scale and shift per channel or per sample and channel, and optional SiLU, and its gradient.
 *
 * A group is `size` elements in a row. Its mean and deviation come from those of chunks of SPAN elements, each taken
 * about the chunk's own mean, so that large means cost no digits. */

enum { SPAN = 4096, MINE = SPAN / THREADS };

DEVICE int in_chunk(long long size, int chunk) {
    const long long left = size - (long long)chunk * SPAN;
    return left < SPAN ? (int)left : SPAN;
}

/* ---- mean and sum of squared deviations of every chunk: `parts` [group][chunk][2] ---- */

typedef struct {
    const STORE *x;
    float *parts;
    long long size;
    int chunks;
} MomentsArgs;

typedef struct {
    float x[MINE];
    float mean;
} MomentsState;

DEVICE void moments_sum(const MomentsArgs *a, OneSum *shared, MomentsState *me, Thread t) {
    const int group = t.bx / a->chunks, chunk = t.bx % a->chunks, count = in_chunk(a->size, chunk);
    const STORE *x = a->x + group * a->size + (long long)chunk * SPAN;
    float sum = 0.0f;
    UNROLL
    for (int e = 0; e < MINE; ++e) {
        const int i = e * THREADS + index_of(t);
        me->x[e] = i < count ? load(x[i]) : 0.0f;
        sum += me->x[e];
    }
    shared->sums[0][index_of(t)] = sum;
}

DEVICE void moments_square(const MomentsArgs *a, OneSum *shared, const MomentsState *me, Thread t) {
    const int count = in_chunk(a->size, t.bx % a->chunks);
    float sum = 0.0f;
    UNROLL
    for (int e = 0; e < MINE; ++e) {
        const float far = me->x[e] - me->mean;
        if (e * THREADS + index_of(t) < count) sum += far * far;
    }
    shared->sums[0][index_of(t)] = sum;
}

KERNEL(group_moments, MomentsArgs) {
    BLOCK(OneSum, MomentsState)
    PHASE(moments_sum(a, shared, me, t);)
    SUM_OVER_BLOCK(shared->sums, 1)
    PHASE(me->mean = shared->sums[0][0] / (float)in_chunk(a->size, t.bx % a->chunks);)
    PHASE(moments_square(a, shared, me, t);)
    SUM_OVER_BLOCK(shared->sums, 1)
    PHASE(if (index_of(t) == 0) {
        a->parts[2ll * t.bx] = me->mean;
        a->parts[2ll * t.bx + 1] = shared->sums[0][0];
    })
    END
}

/* ---- mean and 1/sd of every group: `statistics` [group][2] ---- */

typedef struct {
    const float *parts;
    float *statistics;
    long long size;
    int chunks;
    float epsilon;
} StatisticsArgs;

typedef struct {
    float mean;
} StatisticsState;

DEVICE void statistics_mean(const StatisticsArgs *a, OneSum *shared, Thread t) {
    const float *parts = a->parts + 2ll * t.bx * a->chunks;
    float sum = 0.0f;
    for (int c = index_of(t); c < a->chunks; c += THREADS) sum += (float)in_chunk(a->size, c) * parts[2 * c];
    shared->sums[0][index_of(t)] = sum;
}

DEVICE void statistics_square(const StatisticsArgs *a, OneSum *shared, const StatisticsState *me, Thread t) {
    const float *parts = a->parts + 2ll * t.bx * a->chunks;
    float sum = 0.0f;
    for (int c = index_of(t); c < a->chunks; c += THREADS) {
        const float far = parts[2 * c] - me->mean;
        sum += parts[2 * c + 1] + (float)in_chunk(a->size, c) * far * far;
    }
    shared->sums[0][index_of(t)] = sum;
}

KERNEL(group_statistics, StatisticsArgs) {
    BLOCK(OneSum, StatisticsState)
    PHASE(statistics_mean(a, shared, t);)
    SUM_OVER_BLOCK(shared->sums, 1)
    PHASE(me->mean = shared->sums[0][0] / (float)a->size;)
    PHASE(statistics_square(a, shared, me, t);)
    SUM_OVER_BLOCK(shared->sums, 1)
    PHASE(if (index_of(t) == 0) {
        a->statistics[2ll * t.bx] = me->mean;
        a->statistics[2ll * t.bx + 1] = 1.0f / sqrtf(shared->sums[0][0] / (float)a->size + a->epsilon);
    })
    END
}

/* ---- u = scale*(x - mean)/sd + shift; y = u or silu(u) ---- */

typedef struct {
    int groups, per_group, pixels;
    int own; /* whether every sample has its own scale and shift */
    int silu;
    int chunks; /* of a group, or of a plane */
} Shape;

/* Where the scale of a channel is; planes are counted over all samples. */
DEVICE int affine_of(const Shape *s, int plane) {
    return s->own ? plane : plane % (s->groups * s->per_group);
}

typedef struct {
    float gain, offset, mean, inverse;
} Affine;

DEVICE Affine affine(const Shape *s, const float *statistics, const float *scale, const float *shift, int plane) {
    const int group = plane / s->per_group, at = affine_of(s, plane);
    Affine f;
    f.mean = statistics[2ll * group];
    f.inverse = statistics[2ll * group + 1];
    f.gain = scale[at] * f.inverse;
    f.offset = shift[at] - f.gain * f.mean;
    return f;
}

typedef struct {
    const STORE *x;
    const float *statistics, *scale, *shift;
    STORE *y;
    Shape shape;
} ApplyArgs;

DEVICE void apply_chunk(const ApplyArgs *a, Thread t) {
    const Shape *s = &a->shape;
    const int group = t.bx / s->chunks, chunk = t.bx % s->chunks;
    const long long size = (long long)s->per_group * s->pixels;
    const int count = in_chunk(size, chunk);
    for (int e = 0; e < MINE; ++e) {
        const int i = e * THREADS + index_of(t);
        if (i >= count) return;
        const long long within = (long long)chunk * SPAN + i;
        const int plane = group * s->per_group + (int)within / s->pixels;
        const Affine f = affine(s, a->statistics, a->scale, a->shift, plane);
        const float u = f.gain * load(a->x[group * size + within]) + f.offset;
        a->y[group * size + within] = store(s->silu ? u / (1.0f + expf(-u)) : u);
    }
}

ONE_PHASE(group_apply, ApplyArgs, apply_chunk)

/* ---- gradient: du = dy*act'(u); of every plane's chunk the sums of du and du*x^: `parts` [plane][chunk][2] ---- */

typedef struct {
    const STORE *x, *dy;
    const float *statistics, *scale, *shift;
    float *parts;
    Shape shape;
} SlopesArgs;

DEVICE float slope(const Shape *s, const Affine *f, float x, float dy) {
    const float u = f->gain * x + f->offset;
    const float logistic = 1.0f / (1.0f + expf(-u));
    return s->silu ? dy * (logistic + u * logistic * (1.0f - logistic)) : dy;
}

DEVICE void slopes_chunk(const SlopesArgs *a, TwoSums *shared, Thread t) {
    const Shape *s = &a->shape;
    const int plane = t.bx / s->chunks, chunk = t.bx % s->chunks, count = in_chunk(s->pixels, chunk);
    const long long first = (long long)plane * s->pixels + (long long)chunk * SPAN;
    const Affine f = affine(s, a->statistics, a->scale, a->shift, plane);
    float sum = 0.0f, with_hat = 0.0f;
    for (int i = index_of(t); i < count; i += THREADS) {
        const float x = load(a->x[first + i]), du = slope(s, &f, x, load(a->dy[first + i]));
        sum += du;
        with_hat += du * (x - f.mean) * f.inverse;
    }
    shared->sums[0][index_of(t)] = sum;
    shared->sums[1][index_of(t)] = with_hat;
}

KERNEL(group_slopes, SlopesArgs) {
    BLOCK(TwoSums, Nothing)
    PHASE(slopes_chunk(a, shared, t);)
    SUM_OVER_BLOCK(shared->sums, 2)
    PHASE(if (index_of(t) < 2) a->parts[2ll * t.bx + index_of(t)] = shared->sums[index_of(t)][0];)
    END
}

/* ---- dscale and dshift of every plane, and the means of g = du*scale and of g*x^ over every group ---- */

typedef struct {
    const float *parts, *scale;
    float *dscale, *dshift, *means; /* [plane], [plane], [group][2] */
    Shape shape;
} MeansArgs;

DEVICE void means_sum(const MeansArgs *a, TwoSums *shared, Thread t) {
    const Shape *s = &a->shape;
    float sum_g = 0.0f, sum_gx = 0.0f;
    for (int c = index_of(t); c < s->per_group; c += THREADS) {
        const int plane = t.bx * s->per_group + c;
        const float *parts = a->parts + 2ll * plane * s->chunks;
        float sum = 0.0f, with_hat = 0.0f;
        for (int k = 0; k < s->chunks; ++k) {
            sum += parts[2 * k];
            with_hat += parts[2 * k + 1];
        }
        a->dshift[plane] = sum;
        a->dscale[plane] = with_hat;
        sum_g += sum * a->scale[affine_of(s, plane)];
        sum_gx += with_hat * a->scale[affine_of(s, plane)];
    }
    shared->sums[0][index_of(t)] = sum_g;
    shared->sums[1][index_of(t)] = sum_gx;
}

KERNEL(group_means, MeansArgs) {
    BLOCK(TwoSums, Nothing)
    PHASE(means_sum(a, shared, t);)
    SUM_OVER_BLOCK(shared->sums, 2)
    PHASE(if (index_of(t) < 2) a->means[2ll * t.bx + index_of(t)] =
              shared->sums[index_of(t)][0] / ((float)a->shape.per_group * (float)a->shape.pixels);)
    END
}

/* ---- dx = (g - mean(g) - x^*mean(g*x^))/sd ---- */

typedef struct {
    const STORE *x, *dy;
    const float *statistics, *scale, *shift, *means;
    STORE *dx;
    Shape shape;
} InputArgs;

DEVICE void input_chunk(const InputArgs *a, Thread t) {
    const Shape *s = &a->shape;
    const int group = t.bx / s->chunks, chunk = t.bx % s->chunks;
    const long long size = (long long)s->per_group * s->pixels;
    const int count = in_chunk(size, chunk);
    for (int e = 0; e < MINE; ++e) {
        const int i = e * THREADS + index_of(t);
        if (i >= count) return;
        const long long within = (long long)chunk * SPAN + i, at = group * size + within;
        const Affine f =
            affine(s, a->statistics, a->scale, a->shift, group * s->per_group + (int)within / s->pixels);
        const float x = load(a->x[at]), du = slope(s, &f, x, load(a->dy[at]));
        const float hat = (x - f.mean) * f.inverse;
        a->dx[at] = store(f.gain * du - (a->means[2ll * group] + hat * a->means[2ll * group + 1]) * f.inverse);
    }
}

ONE_PHASE(group_input, InputArgs, input_chunk)
