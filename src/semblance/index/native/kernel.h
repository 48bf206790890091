/* Shared by the kernels: what Python calls, and the few things every path needs.
 *
 * A path is one way to use one kind of processor: a file path_*.c that defines its vectors and its population
 * count and includes search.h, which becomes the three entry points of that path. All give equal answers.
 */
#ifndef SEMBLANCE_KERNEL_H
#define SEMBLANCE_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#if defined(_WIN32)
#define EXPORT __declspec(dllexport)
#else
#define EXPORT __attribute__((visibility("default")))
#endif

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define NOINLINE static __attribute__((noinline))
#elif defined(_MSC_VER)
#define INLINE static __forceinline
#define NOINLINE static __declspec(noinline)
#else
#define INLINE static inline
#define NOINLINE static
#endif

/* Asked for a page and a half ahead, memory is read an eighth to a fifth faster than the processor foresees by itself
 * (Zen 5; less or more is worse). Nothing happens beyond the end. */
#if defined(__GNUC__)
#define FETCH_AHEAD(address) __builtin_prefetch((const char *)(address) + 6144)
#else
#define FETCH_AHEAD(address)
#endif

#if defined(__GNUC__) && defined(__x86_64__)
#define X86_PATHS 1
#else
#define X86_PATHS 0
#endif

/* Codes (n, w) and queries (q, w) of 64-bit words. Each call returns 0, or -1 where memory ran out. */
typedef struct {
    const uint64_t *codes;
    size_t n, w;
    const uint64_t *queries;
    size_t q;
} Asked;

typedef struct {
    int (*usable)(void);
    /* The k nearest of each query, by (distance, row), into rows and distances (q, k); -1 and FAR pad. */
    int (*nearest)(const Asked *asked, size_t k, int64_t *rows, int32_t *distances);
    /* All below a distance: ends (q + 1), and keys, distance << 48 | row, which the caller frees. */
    int (*within)(const Asked *asked, uint32_t radius, uint64_t **keys, int64_t *ends);
    /* How many codes lie at each distance: out (q, bits + 1). */
    int (*count)(const Asked *asked, size_t bits, int64_t *out);
} Path;

#define FAR INT32_MAX
#define ROW_BITS 48
#define ROW_MASK ((UINT64_C(1) << ROW_BITS) - 1)

extern const Path path_portable;
#if X86_PATHS
extern const Path path_popcnt, path_avx2, path_avx512;
#endif

#endif
