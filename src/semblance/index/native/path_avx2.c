/* x86-64 with AVX2: words for few queries, vectors of 256 bits for many. */
#include "kernel.h"

#if X86_PATHS
#include <immintrin.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx2,popcnt,bmi"))), apply_to = function)
#else
#pragma GCC target("avx2,popcnt,bmi")
#endif

typedef uint64_t V __attribute__((vector_size(32)));
#define NAME path_avx2
#define FEW 6 /* from so many queries on a tile is sliced: its table costs as much as measuring for these */
#define POPCOUNT(x) ((unsigned)__builtin_popcountll(x))
#define ALL_SET(v) _mm256_testc_si256((__m256i)(v), _mm256_set1_epi64x(-1))

static int usable(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi");
}

#include "scalar.h"
#include "search.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
