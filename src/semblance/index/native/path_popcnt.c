/* x86-64 with the population count of 2008: words for few queries, SSE2 for many. */
#include "kernel.h"

#if X86_PATHS
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("popcnt"))), apply_to = function)
#else
#pragma GCC target("popcnt")
#endif

typedef uint64_t V __attribute__((vector_size(16)));
#define NAME path_popcnt
#define FEW 6 /* from so many queries on a tile is sliced: its table costs as much as measuring for these */
#define POPCOUNT(x) ((unsigned)__builtin_popcountll(x))

static int usable(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("popcnt") != 0;
}

#include "scalar.h"
#include "search.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
