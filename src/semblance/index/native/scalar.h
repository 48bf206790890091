/* The logic and the distances of a path without instructions of its own: one code at a time. */
#include <string.h>

#define ADD(sum, carry, x, y)            \
    do {                                 \
        V x_ = (x), y_ = (y);            \
        V differ = (sum) ^ x_;           \
        carry = (differ & (x_ ^ y_)) ^ x_; \
        sum = differ ^ y_;               \
    } while (0)

#ifndef ALL_SET
INLINE int all_set(V v) {
    uint64_t lanes[sizeof(V) / 8], all = ~UINT64_C(0);
    memcpy(lanes, &v, sizeof v);
    for (size_t i = 0; i < sizeof(V) / 8; i++) all &= lanes[i];
    return all == ~UINT64_C(0);
}
#define ALL_SET(v) all_set(v)
#endif

INLINE int any_below(const uint16_t *d, uint16_t limit) {
    unsigned found = 0;
    for (size_t i = 0; i < 64; i++) found |= d[i] < limit;
    return (int)found;
}
#define ANY_BELOW(d, limit) any_below(d, limit)

/* `w` is a constant where this is called for the usual widths. */
INLINE void distances_of(const uint64_t *codes, size_t n, size_t w, const uint64_t *query, uint16_t *out) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) { /* four at a time: they do not wait for each other */
        unsigned a = 0, b = 0, c = 0, d = 0;
        for (size_t j = 0; j < w; j++, codes++) {
            FETCH_AHEAD(codes + 3 * j);
            a += POPCOUNT(codes[0] ^ query[j]);
            b += POPCOUNT(codes[w] ^ query[j]);
            c += POPCOUNT(codes[2 * w] ^ query[j]);
            d += POPCOUNT(codes[3 * w] ^ query[j]);
        }
        codes += 3 * w;
        out[i] = (uint16_t)a;
        out[i + 1] = (uint16_t)b;
        out[i + 2] = (uint16_t)c;
        out[i + 3] = (uint16_t)d;
    }
    for (; i < n; i++) {
        unsigned a = 0;
        for (size_t j = 0; j < w; j++) a += POPCOUNT(*codes++ ^ query[j]);
        out[i] = (uint16_t)a;
    }
}

static void distances(const uint64_t *codes, size_t n, size_t w, const uint64_t *query, uint16_t *out) {
    switch (w) {
    case 1: distances_of(codes, n, 1, query, out); break;
    case 2: distances_of(codes, n, 2, query, out); break;
    case 4: distances_of(codes, n, 4, query, out); break;
    default: distances_of(codes, n, w, query, out);
    }
}
