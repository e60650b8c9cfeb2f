/* What CUDA makes of the kernels' text; ELEMENT comes before it: 0 for f32, 1 for f16, 2 for bf16. */

typedef struct {
    int bx, by, bz, x, y;
} Thread;
typedef struct {
    char unused;
} Nothing;

enum { THREADS = 256 };

#define DEVICE static __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define ALIGNED(bytes) __align__(bytes)

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
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
DEVICE STORE store(float value) {
    STORE bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
}
#else
typedef unsigned short STORE;
DEVICE float load(STORE bits) {
    return __uint_as_float((unsigned)bits << 16);
}
/* Not every device that the compiler is asked for has an instruction for it. */
DEVICE STORE store(float value) {
    const unsigned bits = __float_as_uint(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return (STORE)(bits >> 16 | 0x40);
    return (STORE)((bits + 0x7fffu + (bits >> 16 & 1)) >> 16);
}
#endif

#define KERNEL(name, Args) \
    extern "C" __global__ void __launch_bounds__(256) name(const __grid_constant__ Args args)
#define BLOCK(Shared, State)                                                                           \
    const auto *const a = &args;                                                                       \
    __shared__ Shared shared_of_block;                                                                 \
    Shared *const shared = &shared_of_block;                                                           \
    State state;                                                                                       \
    State *const me = &state;                                                                          \
    const Thread t = {(int)blockIdx.x, (int)blockIdx.y, (int)blockIdx.z, (int)threadIdx.x, (int)threadIdx.y}; \
    (void)shared;                                                                                      \
    (void)me;
#define PHASE(...)   \
    { __VA_ARGS__ }  \
    __syncthreads();
#define END
