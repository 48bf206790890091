/* x86-64 with AVX-512 and its population count (Ice Lake, Zen 4 and later): eight codes at a time. */
#include "kernel.h"

#if X86_PATHS
#include <immintrin.h>
#include <string.h>

#if defined(__clang__)
#pragma clang attribute push(__attribute__((target("avx512f,avx512bw,avx512vl,avx512vpopcntdq,popcnt,bmi"))), \
                             apply_to = function)
#else
#pragma GCC target("avx512f,avx512bw,avx512vl,avx512vpopcntdq,popcnt,bmi")
#endif

typedef uint64_t V __attribute__((vector_size(64)));
#define NAME path_avx512
#define FEW 16 /* from so many queries on a tile is sliced: its table costs as much as measuring for these */
#define POPCOUNT(x) ((unsigned)__builtin_popcountll(x))
#define TERNARY(a, b, c, table) ((V)_mm512_ternarylogic_epi64((__m512i)(a), (__m512i)(b), (__m512i)(c), table))
#define ADD(sum, carry, x, y)                \
    do {                                     \
        V x_ = (x), y_ = (y), s_ = (sum);    \
        carry = TERNARY(s_, x_, y_, 0xE8);   \
        sum = TERNARY(s_, x_, y_, 0x96);     \
    } while (0)
#define ALL_SET(v) (_mm512_cmpneq_epi64_mask((__m512i)(v), _mm512_set1_epi64(-1)) == 0)

static int usable(void) {
    __builtin_cpu_init();
    return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512vpopcntdq") &&
           __builtin_cpu_supports("popcnt") && __builtin_cpu_supports("bmi");
}

INLINE int any_below(const uint16_t *d, uint16_t limit) {
    __m512i most = _mm512_set1_epi16((short)limit);
    return (_mm512_cmplt_epu16_mask(_mm512_loadu_si512(d), most) |
            _mm512_cmplt_epu16_mask(_mm512_loadu_si512(d + 32), most)) != 0;
}
#define ANY_BELOW(d, limit) any_below(d, limit)

INLINE __m512i differing(const uint64_t *codes, __m512i query) {
    FETCH_AHEAD(codes);
    return _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(codes), query));
}

/* Sums of pairs of neighbours of a and of b: lane 2i from a, lane 2i + 1 from b. */
INLINE __m512i add_pairs(__m512i a, __m512i b) {
    return _mm512_add_epi64(_mm512_unpacklo_epi64(a, b), _mm512_unpackhi_epi64(a, b));
}

INLINE void put(uint16_t *out, __m512i found) { _mm_storeu_si128((__m128i *)out, _mm512_cvtepi64_epi16(found)); }

/* The population counts of one code of any width, in eight lanes: whole vectors, then the `rest` under a mask. */
INLINE __m512i row(const uint64_t *code, const uint64_t *query, size_t whole, __mmask8 rest, __m512i last) {
    FETCH_AHEAD(code);
    __m512i sum = _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_maskz_loadu_epi64(rest, code + whole), last));
    for (size_t j = 0; j < whole; j += 8)
        sum = _mm512_add_epi64(sum, differing(code + j, _mm512_loadu_si512(query + j)));
    return sum;
}

/* Sums over the pairs of lanes of a, then of b: four codes' halves become two codes' wholes. */
INLINE __m512i add_halves(__m512i a, __m512i b) {
    return _mm512_add_epi64(_mm512_shuffle_i64x2(a, b, 0x88), _mm512_shuffle_i64x2(a, b, 0xDD));
}

static void distances(const uint64_t *codes, size_t n, size_t w, const uint64_t *query, uint16_t *out) {
    size_t i = 0;
    if (w == 1) {
        __m512i q = _mm512_set1_epi64((long long)query[0]);
        for (; i + 8 <= n; i += 8) put(out + i, differing(codes + i, q));
    } else if (w == 2) {
        __m512i q = _mm512_broadcast_i32x4(_mm_loadu_si128((const __m128i *)query));
        const __m512i order = _mm512_setr_epi64(0, 2, 4, 6, 1, 3, 5, 7);
        for (; i + 8 <= n; i += 8)
            put(out + i, _mm512_permutexvar_epi64(order, add_pairs(differing(codes + 2 * i, q), differing(codes + 2 * i + 8, q))));
    } else if (w == 4) {
        __m512i q = _mm512_broadcast_i64x4(_mm256_loadu_si256((const __m256i *)query));
        const __m512i order = _mm512_setr_epi64(0, 2, 1, 3, 4, 6, 5, 7);
        for (; i + 8 <= n; i += 8) {
            const uint64_t *c = codes + 4 * i;
            __m512i low = add_pairs(differing(c, q), differing(c + 8, q));        /* 0 2 0 2 1 3 1 3 */
            __m512i high = add_pairs(differing(c + 16, q), differing(c + 24, q)); /* 4 6 4 6 5 7 5 7 */
            put(out + i, _mm512_permutexvar_epi64(order, add_halves(low, high)));
        }
    } else {
        size_t whole = w / 8 * 8;
        __mmask8 rest = (__mmask8)((1u << (w - whole)) - 1);
        __m512i last = _mm512_maskz_loadu_epi64(rest, query + whole);
#define ROW(k) row(codes + (i + (k)) * w, query, whole, rest, last)
        for (; i + 8 <= n; i += 8) {
            __m512i low = add_halves(add_pairs(ROW(0), ROW(1)), add_pairs(ROW(2), ROW(3)));
            __m512i high = add_halves(add_pairs(ROW(4), ROW(5)), add_pairs(ROW(6), ROW(7)));
            put(out + i, add_halves(low, high));
        }
    }
    for (; i < n; i++) {
        unsigned sum = 0;
        for (size_t j = 0; j < w; j++) sum += POPCOUNT(codes[i * w + j] ^ query[j]);
        out[i] = (uint16_t)sum;
    }
}

#include "search.h"

#if defined(__clang__)
#pragma clang attribute pop
#endif
#endif
