/* What a convolution needs beside products of matrices: windows as columns, weights turned over, the bias; and direct
 * kernels where every channel is a group of its own. All gather: no element is written by two threads. */

/* ---- windows: cols [sample][channel][tap][pixel] of some pixels of the output ---- */

typedef struct {
    const STORE *x; /* first channel of the first sample */
    STORE *cols;
    long long per_sample; /* elements from sample to sample of x */
    int samples, channels, height, width;
    int side, stride, before; /* taps of a row, step of the windows, zeros in front */
    int spread;               /* rows and columns of x lie this far apart, with zeros between */
    int out_width, first, count; /* pixels of the output */
} WindowsArgs;

DEVICE void windows_some(const WindowsArgs *a, Thread t) {
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i >= (long long)a->samples * a->channels * a->count) return;
        /* The scratch that holds all columns is far below 2^31 elements. */
        const int pixel = (int)i % a->count, plane = (int)i / a->count;
        const int channel = plane % a->channels, sample = plane / a->channels;
        const int row = (a->first + pixel) / a->out_width * a->stride - a->before;
        const int col = (a->first + pixel) % a->out_width * a->stride - a->before;
        const STORE *x = a->x + sample * a->per_sample + (long long)channel * a->height * a->width;
        STORE *to = a->cols + (long long)plane * a->side * a->side * a->count + pixel;
        for (int tap_row = 0; tap_row < a->side; ++tap_row)
            for (int tap_col = 0; tap_col < a->side; ++tap_col, to += a->count) {
                int r = row + tap_row, c = col + tap_col;
                int inside = r >= 0 && c >= 0;
                if (a->spread > 1) {
                    inside = inside && r % a->spread == 0 && c % a->spread == 0;
                    r /= a->spread;
                    c /= a->spread;
                }
                inside = inside && r < a->height && c < a->width;
                *to = inside ? x[(long long)r * a->width + c] : store(0.0f);
            }
    }
}

ONE_PHASE(windows, WindowsArgs, windows_some)

/* ---- weights [group][out][in][tap] -> [group][in][out][tap in reverse], as elements ---- */

typedef struct {
    const float *w;
    STORE *turned;
    int groups, outputs, inputs, taps; /* of a group */
} TurnArgs;

DEVICE void turn_some(const TurnArgs *a, Thread t) {
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i >= (long long)a->groups * a->outputs * a->inputs * a->taps) return;
        const int tap = (int)(i % a->taps), out = (int)(i / a->taps % a->outputs);
        const int in = (int)(i / a->taps / a->outputs % a->inputs);
        const long long group = i / a->taps / a->outputs / a->inputs;
        a->turned[i] =
            store(a->w[((group * a->outputs + out) * a->inputs + in) * a->taps + a->taps - 1 - tap]);
    }
}

ONE_PHASE(turn_weights, TurnArgs, turn_some)

/* ---- every plane filled with its channel's bias ---- */

typedef struct {
    const float *bias;
    STORE *y;
    long long length, pixels;
    int channels;
} BiasArgs;

DEVICE void bias_some(const BiasArgs *a, Thread t) {
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i >= a->length) return;
        a->y[i] = store(a->bias[i / a->pixels % a->channels]);
    }
}

ONE_PHASE(fill_bias, BiasArgs, bias_some)

/* ---- depthwise ---- */

typedef struct {
    int channels, height, width, out_height, out_width;
    int side, stride, pad;
} Depth;

typedef struct {
    const STORE *x;
    const float *w, *bias;
    STORE *y;
    long long length;
    Depth shape;
} DepthArgs;

DEVICE void depth_output(const DepthArgs *a, Thread t) {
    const Depth *s = &a->shape;
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i >= a->length) return;
        const int col = (int)(i % s->out_width) * s->stride - s->pad;
        const int row = (int)(i / s->out_width % s->out_height) * s->stride - s->pad;
        const long long plane = i / s->out_width / s->out_height;
        const int channel = (int)(plane % s->channels);
        const STORE *x = a->x + plane * s->height * s->width;
        const float *w = a->w + (long long)channel * s->side * s->side;
        float sum = a->bias[channel];
        for (int r = 0; r < s->side; ++r)
            for (int c = 0; c < s->side; ++c)
                if ((unsigned)(row + r) < (unsigned)s->height && (unsigned)(col + c) < (unsigned)s->width)
                    sum += w[r * s->side + c] * load(x[(long long)(row + r) * s->width + col + c]);
        a->y[i] = store(sum);
    }
}

ONE_PHASE(depth_forward, DepthArgs, depth_output)

typedef struct {
    const STORE *dy;
    const float *w;
    STORE *dx;
    long long length;
    Depth shape;
} DepthInputArgs;

DEVICE void depth_gather(const DepthInputArgs *a, Thread t) {
    const Depth *s = &a->shape;
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i >= a->length) return;
        const int col = (int)(i % s->width) + s->pad, row = (int)(i / s->width % s->height) + s->pad;
        const long long plane = i / s->width / s->height;
        const STORE *dy = a->dy + plane * s->out_height * s->out_width;
        const float *w = a->w + plane % s->channels * s->side * s->side;
        float sum = 0.0f;
        for (int r = 0; r < s->side; ++r)
            for (int c = 0; c < s->side; ++c) {
                const int y = row - r, x = col - c;
                if (y < 0 || x < 0 || y % s->stride || x % s->stride) continue;
                if (y / s->stride >= s->out_height || x / s->stride >= s->out_width) continue;
                sum += w[r * s->side + c] * load(dy[(long long)(y / s->stride) * s->out_width + x / s->stride]);
            }
        a->dx[i] = store(sum);
    }
}

ONE_PHASE(depth_input, DepthInputArgs, depth_gather)

typedef struct {
    const STORE *x, *dy;
    float *parts; /* [sample][channel][tap] */
    Depth shape;
} DepthWeightArgs;

DEVICE void depth_tap(const DepthWeightArgs *a, OneSum *shared, Thread t) {
    const Depth *s = &a->shape;
    const int tap = t.bx % (s->side * s->side), plane = t.bx / (s->side * s->side);
    const STORE *x = a->x + (long long)plane * s->height * s->width;
    const STORE *dy = a->dy + (long long)plane * s->out_height * s->out_width;
    float sum = 0.0f;
    for (int i = index_of(t); i < s->out_height * s->out_width; i += THREADS) {
        const int row = i / s->out_width * s->stride - s->pad + tap / s->side;
        const int col = i % s->out_width * s->stride - s->pad + tap % s->side;
        if ((unsigned)row < (unsigned)s->height && (unsigned)col < (unsigned)s->width)
            sum += load(dy[i]) * load(x[(long long)row * s->width + col]);
    }
    shared->sums[0][index_of(t)] = sum;
}

KERNEL(depth_weight, DepthWeightArgs) {
    BLOCK(OneSum, Nothing)
    PHASE(depth_tap(a, shared, t);)
    SUM_OVER_BLOCK(shared->sums, 1)
    PHASE(if (index_of(t) == 0) a->parts[t.bx] = shared->sums[0][0];)
    END
}
