/* What a C compiler makes of the kernels' text: blocks one after the other, and in each every phase for all threads.
 * ELEMENT (0 for f32, 1 for f16, 2 for bf16) and BACKWARD (threads and blocks in falling order) come before it. */

#include <math.h>
#include <stdlib.h>
#include <string.h>

typedef struct {
    int bx, by, bz, x, y;
} Thread;
typedef struct {
    char unused;
} Nothing;

enum { THREADS = 256 };

#define DEVICE static inline
#define UNROLL
#define ALIGNED(bytes) __attribute__((aligned(bytes)))

DEVICE int index_of(Thread t) {
    return t.y * 32 + t.x;
}

#if ELEMENT == 0
typedef float STORE;
DEVICE float load(STORE value) {
    return value;
}
DEVICE STORE store(float value) {
    return value;
}
#elif ELEMENT == 1
typedef unsigned short STORE;
DEVICE float load(STORE bits) {
    const int exponent = bits >> 10 & 31, digits = bits & 1023;
    const float size = exponent == 31  ? (digits ? NAN : INFINITY)
                       : exponent == 0 ? ldexpf((float)digits, -24)
                                       : ldexpf((float)(digits + 1024), exponent - 25);
    return bits & 0x8000 ? -size : size;
}
/* `rintf` rounds ties to even. */
DEVICE STORE store(float value) {
    const STORE sign = signbit(value) ? 0x8000 : 0;
    const float size = fabsf(value);
    int exponent;
    if (isnan(value)) return 0x7e00;
    if (size >= 65520.0f) return sign | 0x7c00;
    if (size < 6.103515625e-5f) return sign | (STORE)rintf(ldexpf(size, 24));
    frexpf(size, &exponent);
    return sign | (STORE)(((exponent + 13) << 10) + (int)rintf(ldexpf(size, 11 - exponent)));
}
#else
typedef unsigned short STORE;
DEVICE float load(STORE half) {
    const unsigned bits = (unsigned)half << 16;
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}
DEVICE STORE store(float value) {
    unsigned bits;
    memcpy(&bits, &value, sizeof bits);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (STORE)(bits >> 16 | 0x40);
    return (STORE)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
#endif

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
    for (long block = 0; block < (long)blocks[0] * blocks[1] * blocks[2]; ++block) { \
        const long at = ORDERED(block, (long)blocks[0] * blocks[1] * blocks[2]);    \
        memset(shared, 0xff, sizeof(Shared));                                       \
        memset(states, 0xff, THREADS * sizeof(State));
#define PHASE(...)                                                                                  \
    for (int thread = 0; thread < THREADS; ++thread) {                                              \
        const int mine = ORDERED(thread, THREADS);                                                  \
        const Thread t = {(int)(at % blocks[0]), (int)(at / blocks[0] % blocks[1]),                  \
                          (int)(at / blocks[0] / blocks[1]), mine % 32, mine / 32};                  \
        StateOfThread *const me = states + mine;                                                    \
        (void)me;                                                                                   \
        (void)t;                                                                                    \
        __VA_ARGS__                                                                                 \
    }
#define END      \
    }            \
    free(shared); \
    free(states);
