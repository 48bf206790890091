/* Any processor, any compiler: 128-bit vectors where the compiler has them (SSE2, NEON), words where not. */
#include "kernel.h"

#if defined(__GNUC__)
typedef uint64_t V __attribute__((vector_size(16)));
#else
typedef uint64_t V;
#endif
#define FEW 6 /* from so many queries on a tile is sliced: its table costs as much as measuring for these */
#define NAME path_portable

#if defined(__GNUC__) && defined(__aarch64__)
#define POPCOUNT(x) ((unsigned)__builtin_popcountll(x))
#else
static inline unsigned popcount(uint64_t x) {
    x -= (x >> 1) & UINT64_C(0x5555555555555555);
    x = (x & UINT64_C(0x3333333333333333)) + ((x >> 2) & UINT64_C(0x3333333333333333));
    return (unsigned)((((x + (x >> 4)) & UINT64_C(0x0F0F0F0F0F0F0F0F)) * UINT64_C(0x0101010101010101)) >> 56);
}
#define POPCOUNT(x) popcount(x)
#endif

static int usable(void) { return 1; }

#include "scalar.h"
#include "search.h"
