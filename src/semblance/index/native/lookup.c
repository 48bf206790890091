/* Distances from real-valued queries to packed codes: the sum of one table entry for each byte that differs.
 *
 * The entries of a code are added in rising order of byte, in double precision, and the sum is rounded once. That
 * order is part of the answer: NumPy's path adds in the same one, so both give the same bits.
 */
#include "kernel.h"

#include <float.h>

#define BYTE(x, b) (((x) >> (8 * (b))) & 255)

static float rounded(double sum) { return sum > FLT_MAX ? FLT_MAX : (float)sum; }

/* tables: (bytes, 256); signs: w words, the query's own code; out: n. */
EXPORT void semblance_lookup(const uint64_t *codes, size_t n, size_t w, size_t bytes, const double *tables,
                             const uint64_t *signs, float *out) {
    size_t i = 0;
    for (; i + 4 <= n; i += 4) { /* four codes at a time: their sums do not wait for each other */
        const uint64_t *code = codes + i * w;
        const double *table = tables;
        double a = 0, b = 0, c = 0, d = 0;
        for (size_t j = 0; j < w; j++) {
            size_t here = bytes - 8 * j < 8 ? bytes - 8 * j : 8;
            uint64_t p = code[j] ^ signs[j], q = code[w + j] ^ signs[j];
            uint64_t r = code[2 * w + j] ^ signs[j], s = code[3 * w + j] ^ signs[j];
            for (size_t k = 0; k < here; k++, table += 256) {
                a += table[BYTE(p, k)];
                b += table[BYTE(q, k)];
                c += table[BYTE(r, k)];
                d += table[BYTE(s, k)];
            }
        }
        out[i] = rounded(a);
        out[i + 1] = rounded(b);
        out[i + 2] = rounded(c);
        out[i + 3] = rounded(d);
    }
    for (; i < n; i++) {
        const double *table = tables;
        double a = 0;
        for (size_t k = 0; k < bytes; k++, table += 256) a += table[BYTE(codes[i * w + k / 8] ^ signs[k / 8], k % 8)];
        out[i] = rounded(a);
    }
}
