/* What a C compiler makes of the kernels' text: blocks one after the other, and in each every phase for all threads.
 * SLICES, HALF and BACKWARD (threads and blocks in falling order) come before it. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int bx, by, bz, x, y;
} Thread;
typedef struct {
    char unused;
} Nothing;

#define DEVICE static inline
#define UNROLL
#define ALIGNED(bytes) __attribute__((aligned(bytes)))

#if HALF
/* The bits of an IEEE half. */
DEVICE float from_half(unsigned short bits) {
    const int exponent = bits >> 10 & 31, digits = bits & 1023;
    const float size = exponent == 31  ? (digits ? NAN : INFINITY)
                       : exponent == 0 ? ldexpf((float)digits, -24)
                                       : ldexpf((float)(digits + 1024), exponent - 25);
    return bits & 0x8000 ? -size : size;
}
/* The nearest, ties to even: `rintf` rounds so. */
DEVICE unsigned short to_half(float value) {
    const unsigned short sign = signbit(value) ? 0x8000 : 0;
    const float size = fabsf(value);
    int exponent;
    if (isnan(value)) return 0x7e00;
    if (size >= 65520.0f) return sign | 0x7c00;
    if (size < 6.103515625e-5f) return sign | (unsigned short)rintf(ldexpf(size, 24));
    frexpf(size, &exponent);
    return sign | (unsigned short)(((exponent + 13) << 10) + (int)rintf(ldexpf(size, 11 - exponent)));
}
#endif

enum { THREADS = 256 };
#if BACKWARD
#define ORDERED(i, count) ((count) - 1 - (i))
#else
#define ORDERED(i, count) (i)
#endif

#define KERNEL(name, Args) void name(const int *blocks, const Args *a)
/* Memory of a block starts as NaN, so that reading what no phase has written shows. */
#define BLOCK(Shared, State)                                                        \
    typedef State StateOfThread;                                                    \
    Shared *const shared = (Shared *)aligned_alloc(64, (sizeof(Shared) + 63) & ~63ul); \
    StateOfThread *const states = (StateOfThread *)malloc(THREADS * sizeof(State)); \
    for (int block = 0; block < blocks[0] * blocks[1] * blocks[2]; ++block) {       \
        const int at = ORDERED(block, blocks[0] * blocks[1] * blocks[2]);           \
        memset(shared, 0xff, sizeof(Shared));                                       \
        memset(states, 0xff, THREADS * sizeof(State));
#define PHASE(...)                                                                                  \
    for (int thread = 0; thread < THREADS; ++thread) {                                              \
        const int mine = ORDERED(thread, THREADS);                                                  \
        const Thread t = {at % blocks[0], at / blocks[0] % blocks[1], at / blocks[0] / blocks[1], mine % 32, \
                          mine / 32};                                                               \
        StateOfThread *const me = states + mine;                                                    \
        (void)me;                                                                                   \
        (void)t;                                                                                    \
        __VA_ARGS__                                                                                 \
    }
#define END      \
    }            \
    free(shared); \
    free(states);
