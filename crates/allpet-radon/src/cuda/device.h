/* What CUDA makes of the kernels' text; SLICES and HALF come before it. */

typedef struct {
    int bx, by, bz, x, y;
} Thread;
typedef struct {
    char unused;
} Nothing;

#define DEVICE static __device__ __forceinline__
#define UNROLL _Pragma("unroll")
#define ALIGNED(bytes) __align__(bytes)

#if HALF
/* The bits of an IEEE half. */
DEVICE float from_half(unsigned short bits) {
    float value;
    asm("cvt.f32.f16 %0, %1;" : "=f"(value) : "h"(bits));
    return value;
}
DEVICE unsigned short to_half(float value) {
    unsigned short bits;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(value));
    return bits;
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
