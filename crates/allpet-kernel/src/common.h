/* What kernels share on a device and on the host, behind device.h or host.h. */

/* A kernel whose threads do one thing, `some(a, t)`, and have nothing to tell each other. */
#define ONE_PHASE(name, Args, some) \
    KERNEL(name, Args) {            \
        BLOCK(Nothing, Nothing)     \
        PHASE(some(a, t);)          \
        END                         \
    }

