/* The projector, its transpose and filtered back-projection, a batch of slices at a time.
 *
 * One text for two compilers; what comes before it is allpet-kernel's, and SLICES, the slices that one thread holds in
 * registers.
 *
 * SLICES slices lie innermost ("packed"), so that neighbouring threads read neighbouring words; sums are f32.
 * Positions are fixed point with 32 binary places (`long long`), the same in projector and transpose: the pixel that a
 * ray crosses is the upper half of the number, the weight of the next one the lower.
 * Sums run in a fixed order, so that nothing depends on the schedule. */

enum {
    WIDTH = 32,    /* threads of a block along bins or columns */
    HEIGHT = 8,    /* threads of a block along views or rows */
    VIEWS = 4,     /* views of a thread that projects */
    PIXELS = 4,    /* rows of a thread that gathers, HEIGHT apart */
    CHUNK = 32,    /* views that a block keeps at hand when it gathers */
    SPAN = 256     /* bins of a block that filters: WIDTH * HEIGHT */
};

/* The slices that lie side by side. */
typedef struct ALIGNED(SLICES * sizeof(STORE)) {
    STORE v[SLICES];
} Pack;

/* How one view crosses the lines of the image (rows, or columns where `turned`): at line l, bin j meets pixel
 * first + l*per_line + j*per_bin. */
typedef struct {
    long long first, per_line, per_bin;
    float length;        /* mm of ray between two lines */
    float inverse_slope; /* lines per pixel */
    int turned;
    int view; /* row of the sinogram; below 0 this entry only fills up a group */
} Walk;

/* The same as the pixels see it: pixel (row, col) lies at bin first + col*per_col + row*per_row, and bins that far
 * from it count by peak - fall*distance. */
typedef struct {
    long long first, per_col, per_row;
    long long walk_first, walk_line, walk_bin; /* of the walk, for the ends of lines */
    float peak, fall, inverse_slope;
    int turned;
} Ray;

DEVICE float fraction(long long at) {
    return (float)(unsigned)at * 2.3283064365386963e-10f; /* 2^-32 */
}

DEVICE void add(float *sums, float weight, const Pack *from) {
    const Pack pack = *from;
    UNROLL
    for (int s = 0; s < SLICES; ++s)
        sums[s] = fmaf(weight, load(pack.v[s]), sums[s]);
}

/* The part of a crossing beyond the centre of an end pixel that lies inside the image (Joseph's ends). */
DEVICE float covered(long long at, float inverse_slope) {
    /* Distance from the pixel's edge: exact, since the slope's inverse may be a million. */
    const int beyond = (int)((unsigned)at - 0x80000000u);
    const float inside = (at < 0 ? (float)beyond : -(float)beyond) * 2.3283064365386963e-10f;
    return fminf(fmaxf(fmaf(inside, inverse_slope, 0.5f), 0.0f), 1.0f);
}

/* ---- packing: [slice][element] -> [group][element][slice of the group] ---- */

typedef struct {
    const STORE *from;
    Pack *to;
    long long elements;
    int slices;
} PackArgs;

DEVICE void pack_one(const PackArgs *a, Thread t) {
    const long long i = (long long)t.bx * (WIDTH * HEIGHT) + t.y * WIDTH + t.x;
    if (i >= a->elements) return;
    Pack pack;
    for (int s = 0; s < SLICES; ++s) {
        const int slice = t.by * SLICES + s;
        pack.v[s] = slice < a->slices ? a->from[slice * a->elements + i] : store(0.0f);
    }
    a->to[t.by * a->elements + i] = pack;
}

ONE_PHASE(pack, PackArgs, pack_one)

/* ---- turning: the same with rows and columns exchanged, through a tile ---- */

typedef struct {
    const STORE *from;
    Pack *to;
    int slices, rows, cols;
} TurnArgs;

typedef struct {
    Pack tile[WIDTH][WIDTH + 1];
} TurnShared;

DEVICE void turn_read(const TurnArgs *a, TurnShared *shared, Thread t) {
    const int col = t.bx * WIDTH + t.x;
    for (int y = t.y; y < WIDTH; y += HEIGHT) {
        const int row = t.by * WIDTH + y;
        if (row >= a->rows || col >= a->cols) continue;
        const long long i = (long long)row * a->cols + col;
        for (int s = 0; s < SLICES; ++s) {
            const long long slice = t.bz * SLICES + s;
            shared->tile[y][t.x].v[s] =
                slice < a->slices ? a->from[slice * a->rows * a->cols + i] : store(0.0f);
        }
    }
}

DEVICE void turn_write(const TurnArgs *a, const TurnShared *shared, Thread t) {
    const int row = t.by * WIDTH + t.x;
    for (int y = t.y; y < WIDTH; y += HEIGHT) {
        const int col = t.bx * WIDTH + y;
        if (row >= a->rows || col >= a->cols) continue;
        a->to[((long long)t.bz * a->cols + col) * a->rows + row] = shared->tile[t.x][y];
    }
}

KERNEL(turn, TurnArgs) {
    BLOCK(TurnShared, Nothing)
    PHASE(turn_read(a, shared, t);)
    PHASE(turn_write(a, shared, t);)
    END
}

/* ---- projecting: a thread walks all lines for one bin of VIEWS views ---- */

typedef struct {
    const Pack *by_row, *by_col;
    const Walk *walks; /* in groups of VIEWS that share an orientation */
    STORE *sinogram;   /* [slice][view][bin] */
    int slices, rows, cols, views, bins, walk_count;
} ProjectArgs;

DEVICE void cross(float *sums, const Pack *line, int pixels, long long at, const Walk *walk) {
    const int whole = (int)(at >> 32);
    const float above = fraction(at), below = 1.0f - above;
    if ((unsigned)whole < (unsigned)(pixels - 1)) {
        add(sums, below, line + whole);
        add(sums, above, line + whole + 1);
    } else if (whole == -1 || whole == pixels - 1) {
        const float weight = covered(at, walk->inverse_slope);
        add(sums, weight * below, line + (whole < 0 ? 0 : whole));
        add(sums, weight * above, line + (whole < 0 ? 0 : whole));
    }
}

DEVICE void project_bins(const ProjectArgs *a, Thread t) {
    const int bin = t.bx * WIDTH + t.x, group = (t.by * HEIGHT + t.y) * VIEWS;
    if (bin >= a->bins || group >= a->walk_count) return;
    const Walk *walks = a->walks + group;
    const int lines = walks->turned ? a->cols : a->rows, pixels = walks->turned ? a->rows : a->cols;
    const Pack *line = (walks->turned ? a->by_col : a->by_row) + (long long)t.bz * a->rows * a->cols;
    float sums[VIEWS][SLICES];
    long long at[VIEWS], step[VIEWS];
    UNROLL
    for (int v = 0; v < VIEWS; ++v) {
        at[v] = walks[v].first + bin * walks[v].per_bin;
        step[v] = walks[v].per_line;
        for (int s = 0; s < SLICES; ++s) sums[v][s] = 0.0f;
    }
    for (int l = 0; l < lines; ++l) {
        UNROLL
        for (int v = 0; v < VIEWS; ++v) {
            cross(sums[v], line, pixels, at[v], walks + v);
            at[v] += step[v];
        }
        line += pixels;
    }
    UNROLL
    for (int v = 0; v < VIEWS; ++v) {
        if (walks[v].view < 0) continue;
        for (int s = 0; s < SLICES; ++s) {
            const long long slice = (long long)t.bz * SLICES + s;
            if (slice < a->slices)
                a->sinogram[(slice * a->views + walks[v].view) * a->bins + bin] = store(sums[v][s] * walks[v].length);
        }
    }
}

ONE_PHASE(project, ProjectArgs, project_bins)

/* ---- gathering: a thread sums all views for one column of PIXELS rows; transpose and back-projection ---- */

typedef struct {
    const Pack *sinogram; /* [group][view][bin] */
    const Ray *rays;
    STORE *image; /* [slice][row][col] */
    int slices, rows, cols, views, bins;
    int taps; /* bins that count on each side of a pixel */
    int ends; /* whether the ends of lines take the projector's weights */
} GatherArgs;

typedef struct {
    Ray rays[CHUNK];
} GatherShared;

typedef struct {
    float sums[PIXELS][SLICES];
} GatherState;

DEVICE void gather_begin(GatherState *me) {
    UNROLL
    for (int p = 0; p < PIXELS; ++p)
        for (int s = 0; s < SLICES; ++s) me->sums[p][s] = 0.0f;
}

DEVICE void gather_stage(const GatherArgs *a, GatherShared *shared, int first, Thread t) {
    const int views = a->views - first < CHUNK ? a->views - first : CHUNK;
    const int *from = (const int *)(a->rays + first);
    int *to = (int *)shared->rays;
    for (int i = t.y * WIDTH + t.x; i < views * (int)(sizeof(Ray) / sizeof(int)); i += WIDTH * HEIGHT) to[i] = from[i];
}

/* What the projector takes of end pixel `pixel` at position `at`: its own arithmetic. */
DEVICE float end_weight(long long at, int pixel, int pixels, float inverse_slope) {
    const int whole = (int)(at >> 32);
    const float above = fraction(at), below = 1.0f - above;
    if ((unsigned)whole < (unsigned)(pixels - 1)) return whole == pixel ? below : whole + 1 == pixel ? above : 0.0f;
    if (whole != -1 && whole != pixels - 1) return 0.0f;
    return (whole < 0 ? 0 : whole) == pixel ? covered(at, inverse_slope) : 0.0f;
}

DEVICE void gather_end(const GatherArgs *a, float *sums, const Pack *view, const Ray *ray, int bin, int row, int col) {
    const int line = ray->turned ? col : row, pixel = ray->turned ? row : col;
    const int pixels = ray->turned ? a->rows : a->cols;
    for (int j = bin - a->taps + 1; j <= bin + a->taps; ++j) {
        if ((unsigned)j >= (unsigned)a->bins) continue;
        const long long at = ray->walk_first + line * ray->walk_line + j * ray->walk_bin;
        add(sums, end_weight(at, pixel, pixels, ray->inverse_slope) * ray->peak, view + j);
    }
}

DEVICE void gather_add(const GatherArgs *a, const GatherShared *shared, GatherState *me, int first, Thread t) {
    const int views = a->views - first < CHUNK ? a->views - first : CHUNK;
    const int col = t.bx * WIDTH + t.x, row = t.by * (HEIGHT * PIXELS) + t.y;
    const Pack *view = a->sinogram + ((long long)t.bz * a->views + first) * a->bins;
    for (int r = 0; r < views; ++r, view += a->bins) {
        const Ray *ray = shared->rays + r;
        long long at = ray->first + col * ray->per_col + row * ray->per_row;
        const int side = a->ends && !ray->turned && (col == 0 || col == a->cols - 1);
        UNROLL
        for (int p = 0; p < PIXELS; ++p) {
            const int bin = (int)(at >> 32), y = row + p * HEIGHT;
            if (side || (a->ends && ray->turned && (y == 0 || y == a->rows - 1))) {
                gather_end(a, me->sums[p], view, ray, bin, y, col);
            } else {
                const float past = fraction(at);
                for (int tap = 0; tap < a->taps; ++tap) {
                    const int j = bin - tap, k = bin + 1 + tap;
                    const float below = past + (float)tap, above = 1.0f - past + (float)tap;
                    if ((unsigned)j < (unsigned)a->bins)
                        add(me->sums[p], fmaxf(fmaf(-ray->fall, below, ray->peak), 0.0f), view + j);
                    if ((unsigned)k < (unsigned)a->bins)
                        add(me->sums[p], fmaxf(fmaf(-ray->fall, above, ray->peak), 0.0f), view + k);
                }
            }
            at += HEIGHT * ray->per_row;
        }
    }
}

DEVICE void gather_finish(const GatherArgs *a, const GatherState *me, Thread t) {
    const int col = t.bx * WIDTH + t.x;
    UNROLL
    for (int p = 0; p < PIXELS; ++p) {
        const int row = t.by * (HEIGHT * PIXELS) + t.y + p * HEIGHT;
        if (row >= a->rows || col >= a->cols) continue;
        for (int s = 0; s < SLICES; ++s) {
            const long long slice = (long long)t.bz * SLICES + s;
            if (slice < a->slices) a->image[(slice * a->rows + row) * a->cols + col] = store(me->sums[p][s]);
        }
    }
}

KERNEL(gather, GatherArgs) {
    BLOCK(GatherShared, GatherState)
    PHASE(gather_begin(me);)
    for (int first = 0; first < a->views; first += CHUNK) {
        PHASE(gather_stage(a, shared, first, t);)
        PHASE(gather_add(a, shared, me, first, t);)
    }
    PHASE(gather_finish(a, me, t);)
    END
}

/* ---- filtering: every view convolved with the ramp, weighted, and widened by `beyond` bins on each side ---- */

typedef struct {
    const STORE *sinogram; /* [slice][view][bin] */
    const float *taps;     /* of lag -reach to reach */
    const float *weights;  /* of the views */
    Pack *filtered;        /* [group][view][bin + 2*beyond] */
    int slices, views, bins, beyond, reach;
} FilterArgs;

typedef struct {
    float signal[SPAN][SLICES];
    float taps[2 * SPAN];
} FilterShared;

typedef struct {
    float sums[SLICES];
} FilterState;

DEVICE void filter_begin(FilterState *me) {
    for (int s = 0; s < SLICES; ++s) me->sums[s] = 0.0f;
}

/* Inputs first .. first + SPAN, and the lags from these to the outputs of the block. */
DEVICE void filter_stage(const FilterArgs *a, FilterShared *shared, int first, Thread t) {
    const int i = t.y * WIDTH + t.x, bin = first + i;
    for (int s = 0; s < SLICES; ++s) {
        const long long slice = (long long)t.bz * SLICES + s;
        shared->signal[i][s] = bin < a->bins && slice < a->slices
                                   ? load(a->sinogram[(slice * a->views + t.by) * a->bins + bin])
                                   : 0.0f;
    }
    for (int k = i; k < 2 * SPAN; k += SPAN) {
        const int lag = t.bx * SPAN - a->beyond - first - (SPAN - 1) + k;
        shared->taps[k] = lag >= -a->reach && lag <= a->reach ? a->taps[lag + a->reach] : 0.0f;
    }
}

DEVICE void filter_add(const FilterShared *shared, FilterState *me, Thread t) {
    const float *taps = shared->taps + t.y * WIDTH + t.x + SPAN - 1;
    for (int i = 0; i < SPAN; ++i) {
        const float tap = taps[-i];
        UNROLL
        for (int s = 0; s < SLICES; ++s) me->sums[s] = fmaf(tap, shared->signal[i][s], me->sums[s]);
    }
}

DEVICE void filter_finish(const FilterArgs *a, const FilterState *me, Thread t) {
    const int width = a->bins + 2 * a->beyond, out = t.bx * SPAN + t.y * WIDTH + t.x;
    if (out >= width) return;
    Pack pack;
    for (int s = 0; s < SLICES; ++s) pack.v[s] = store(me->sums[s] * a->weights[t.by]);
    a->filtered[((long long)t.bz * a->views + t.by) * width + out] = pack;
}

KERNEL(filter, FilterArgs) {
    BLOCK(FilterShared, FilterState)
    PHASE(filter_begin(me);)
    for (int first = 0; first < a->bins; first += SPAN) {
        PHASE(filter_stage(a, shared, first, t);)
        PHASE(filter_add(shared, me, t);)
    }
    PHASE(filter_finish(a, me, t);)
    END
}
