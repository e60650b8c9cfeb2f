/* Elements moved, repeated or joined, each on its own. */

/* ---- floats as elements ---- */

typedef struct {
    const float *from;
    STORE *to;
    long long length;
} NarrowArgs;

DEVICE void narrow_some(const NarrowArgs *a, Thread t) {
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i < a->length) a->to[i] = store(a->from[i]);
    }
}

ONE_PHASE(narrow, NarrowArgs, narrow_some)

/* ---- a run of elements out of each of several longer runs, into such runs ---- */

typedef struct {
    const STORE *from;
    STORE *to;
    long long count, run, from_step, to_step;
} CopyArgs;

DEVICE void copy_some(const CopyArgs *a, Thread t) {
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i >= a->count * a->run) return;
        a->to[i / a->run * a->to_step + i % a->run] = a->from[i / a->run * a->from_step + i % a->run];
    }
}

ONE_PHASE(copy_runs, CopyArgs, copy_some)

/* ---- every pixel twice along both axes, and the sum of such fours ---- */

typedef struct {
    const STORE *from;
    STORE *to;
    long long length; /* of the result */
    int width;        /* of the small image */
} DoubleArgs;

DEVICE void double_some(const DoubleArgs *a, Thread t) {
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i >= a->length) return;
        const long long row = i / (2 * a->width);
        const int col = (int)(i % (2 * a->width));
        a->to[i] = a->from[row / 2 * a->width + col / 2];
    }
}

ONE_PHASE(double_pixels, DoubleArgs, double_some)

DEVICE void fours_some(const DoubleArgs *a, Thread t) {
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i >= a->length) return;
        const STORE *from = a->from + i / a->width * 4 * a->width + i % a->width * 2;
        const STORE *below = from + 2 * a->width;
        a->to[i] = store((load(from[0]) + load(from[1])) + (load(below[0]) + load(below[1])));
    }
}

ONE_PHASE(sum_of_fours, DoubleArgs, fours_some)

/* ---- blocks of side * side pixels into channels: [plane][row*side + r][col*side + c] <-> [plane][r][c][row][col] ---- */

typedef struct {
    const STORE *from;
    STORE *to;
    long long length;
    int side, height, width; /* of the image whose pixels are blocks */
    int back;                /* channels into blocks */
} BlocksArgs;

DEVICE void blocks_some(const BlocksArgs *a, Thread t) {
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i >= a->length) return;
        const int col = (int)(i % a->width), row = (int)(i / a->width % a->height);
        const long long channel = i / a->width / a->height, plane = channel / (a->side * a->side);
        const int c = (int)(channel % a->side), r = (int)(channel / a->side % a->side);
        const long long wide =
            ((plane * a->height + row) * a->side + r) * a->width * a->side + (long long)col * a->side + c;
        if (a->back)
            a->to[wide] = a->from[i];
        else
            a->to[i] = a->from[wide];
    }
}

ONE_PHASE(move_blocks, BlocksArgs, blocks_some)

/* ---- sum of two ---- */

typedef struct {
    const STORE *x, *y;
    STORE *to;
    long long length;
} AddArgs;

DEVICE void add_some(const AddArgs *a, Thread t) {
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i < a->length) a->to[i] = store(load(a->x[i]) + load(a->y[i]));
    }
}

ONE_PHASE(add_two, AddArgs, add_some)

/* ---- gate: gelu(a)*b of samples [a, b], and its gradient ---- */

typedef struct {
    const STORE *x, *dy;
    STORE *to; /* the result, or the gradient of both halves */
    long long length, half; /* of all results, and of those of a sample */
} GateArgs;

DEVICE float normal_below(float x) {
    return 0.5f * erfcf(-0.70710678f * x);
}

DEVICE void gate_some(const GateArgs *a, Thread t) {
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i >= a->length) return;
        const STORE *x = a->x + i / a->half * 2 * a->half + i % a->half;
        const float gate = load(x[0]);
        a->to[i] = store(gate * normal_below(gate) * load(x[a->half]));
    }
}

ONE_PHASE(gate_forward, GateArgs, gate_some)

DEVICE void gate_slopes(const GateArgs *a, Thread t) {
    for (int e = 0; e < EACH; ++e) {
        const long long i = place(t, e);
        if (i >= a->length) return;
        const long long at = i / a->half * 2 * a->half + i % a->half;
        const float gate = load(a->x[at]), value = load(a->x[at + a->half]), dy = load(a->dy[i]);
        const float below = normal_below(gate), density = 0.39894228f * expf(-0.5f * gate * gate);
        a->to[at] = store(dy * value * (below + gate * density));
        a->to[at + a->half] = store(dy * gate * below);
    }
}

ONE_PHASE(gate_backward, GateArgs, gate_slopes)
