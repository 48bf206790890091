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
static inline int all_set(V v) {
    uint64_t lanes[sizeof(V) / 8], all = ~UINT64_C(0);
    memcpy(lanes, &v, sizeof v);
    for (size_t i = 0; i < sizeof(V) / 8; i++) all &= lanes[i];
    return all == ~UINT64_C(0);
}
#define ALL_SET(v) all_set(v)
#endif

static inline int any_below(const uint16_t *d, uint16_t limit) {
    unsigned found = 0;
    for (size_t i = 0; i < 64; i++) found |= d[i] < limit;
    return (int)found;
}
#define ANY_BELOW(d, limit) any_below(d, limit)

static void distances(const uint64_t *codes, size_t n, size_t w, const uint64_t *query, uint16_t *out) {
    if (w == 1) {
        for (size_t i = 0; i < n; i++) out[i] = (uint16_t)POPCOUNT(codes[i] ^ query[0]);
    } else if (w == 2) {
        for (size_t i = 0; i < n; i++)
            out[i] = (uint16_t)(POPCOUNT(codes[2 * i] ^ query[0]) + POPCOUNT(codes[2 * i + 1] ^ query[1]));
    } else {
        for (size_t i = 0; i < n; i++, codes += w) {
            unsigned sum = 0;
            for (size_t j = 0; j < w; j++) sum += POPCOUNT(codes[j] ^ query[j]);
            out[i] = (uint16_t)sum;
        }
    }
}
