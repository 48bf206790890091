/* Many queries against one tile of codes, by counting upright.
 *
 * A tile is one code per bit of a vector V. Its codes are transposed once: plane b holds bit b of all of them, so
 * that one logical operation works on a whole tile. What a query needs of plane b is the plane or its complement
 * (where the bits differ). Planes are taken three at a time, and the sum and the carry of three differing bits
 * stand ready for each of the eight patterns that a query can have there: `slice` makes this table once, and each
 * query only looks up 21 pairs per word and adds them in carry-save adders, 42 per word, for all codes of the tile
 * at once. The adders begin at 2^m - limit instead of 0: a code is below the limit exactly where no carry leaves
 * bit m, and one test answers for the tile.
 *
 * The including file defines V (a GCC vector of uint64_t, or uint64_t), ADD(sum, carry, x, y), which adds x and y
 * to sum (`sum` keeps the parity, `carry` gets the majority), and ALL_SET(v).
 */

#define LANES (sizeof(V) / 8)
#define TILE (64 * LANES)
#define TRIPLES 21
#define PER_TRIPLE 10 /* the sum and its complement, the carry for each pattern */
#define PLANES (TRIPLES * PER_TRIPLE + 2) /* and bit 63, and its complement */
#define SHIFT (LANES == 8 ? 6 : LANES == 4 ? 5 : LANES == 2 ? 4 : 3) /* log2 of a plane's bytes */
#define MOST_LEVELS 17

enum { COUNTS, TAKES_ALL, DONE };

/* A query made ready: mode, then `levels` masks of the adders' start, then per word the word itself and the parity
 * of each of its patterns. Look-ups are worked out from these two: on the processors at hand loads are dearer. */
typedef struct {
    size_t levels; /* m: 2^m is at least 64 w */
    size_t stride; /* 64-bit words per probe */
    uint64_t *words;
} Probes;

INLINE V every(uint64_t x) { return (V){0} | x; }

INLINE uint64_t *probe_at(const Probes *probes, size_t i) { return probes->words + i * probes->stride; }

static void probes_shape(Probes *probes, size_t w) {
    probes->levels = 6;
    while (((size_t)1 << probes->levels) < 64 * w) probes->levels++;
    probes->stride = 1 + probes->levels + 2 * w;
}

INLINE void probe_limit(const Probes *probes, uint64_t *probe, uint32_t limit) {
    uint64_t top = (uint64_t)1 << probes->levels;
    probe[0] = limit == 0 ? DONE : limit > top ? TAKES_ALL : COUNTS;
    for (size_t i = 0; i < probes->levels; i++) probe[1 + i] = 0 - (((top - limit) >> i) & 1);
}

static void probe_query(const Probes *probes, uint64_t *probe, const uint64_t *query, size_t w) {
    uint64_t *out = probe + 1 + probes->levels;
    for (size_t j = 0; j < w; j++) {
        uint64_t odd = query[j] ^ (query[j] >> 1) ^ (query[j] >> 2), parities = 0;
        for (unsigned i = 0; i < TRIPLES; i++) parities |= ((odd >> (3 * i)) & 1) << i;
        out[2 * j] = query[j];
        out[2 * j + 1] = parities;
    }
}

#define EXCHANGE(a, b, step, mask)                                        \
    do {                                                                   \
        V moved_ = (((a) >> (step)) ^ (b)) & every(UINT64_C(mask));        \
        (a) ^= moved_ << (step);                                           \
        (b) ^= moved_;                                                     \
    } while (0)

/* Three of the six steps of transposing 64 by 64 bits, in eight registers: 32, 16, 8 and then 4, 2, 1. */
#define THREE_STEPS(r, far, far_mask, mid, mid_mask, near, near_mask)                                          \
    EXCHANGE(r[0], r[4], far, far_mask); EXCHANGE(r[1], r[5], far, far_mask);                                  \
    EXCHANGE(r[2], r[6], far, far_mask); EXCHANGE(r[3], r[7], far, far_mask);                                  \
    EXCHANGE(r[0], r[2], mid, mid_mask); EXCHANGE(r[1], r[3], mid, mid_mask);                                  \
    EXCHANGE(r[4], r[6], mid, mid_mask); EXCHANGE(r[5], r[7], mid, mid_mask);                                  \
    EXCHANGE(r[0], r[1], near, near_mask); EXCHANGE(r[2], r[3], near, near_mask);                              \
    EXCHANGE(r[4], r[5], near, near_mask); EXCHANGE(r[6], r[7], near, near_mask);

/* Planes of one word: bit i of lane l of plane b is bit b of code LANES * i + l. */
static void transpose(const uint64_t *words, V *planes) {
    for (size_t i = 0; i < 8; i++) {
        V r[8];
        for (size_t j = 0; j < 8; j++) memcpy(r + j, words + LANES * (i + 8 * j), sizeof(V));
        THREE_STEPS(r, 32, 0x00000000FFFFFFFF, 16, 0x0000FFFF0000FFFF, 8, 0x00FF00FF00FF00FF)
        for (size_t j = 0; j < 8; j++) planes[i + 8 * j] = r[j];
    }
    for (size_t i = 0; i < 64; i += 8) {
        V r[8];
        for (size_t j = 0; j < 8; j++) r[j] = planes[i + j];
        THREE_STEPS(r, 4, 0x0F0F0F0F0F0F0F0F, 2, 0x3333333333333333, 1, 0x5555555555555555)
        for (size_t j = 0; j < 8; j++) planes[i + j] = r[j];
    }
}

/* The table of up to TILE codes: PLANES vectors for each word. Codes beyond n count as zeros. */
static void slice(const uint64_t *codes, size_t n, size_t w, V *table) {
    for (size_t j = 0; j < w; j++, table += PLANES) {
        uint64_t word[TILE];
        V x[64];
        const uint64_t *from = codes;
        if (w > 1 || n < TILE) {
            for (size_t i = 0; i < n; i++) word[i] = codes[i * w + j];
            for (size_t i = n; i < TILE; i++) word[i] = 0;
            from = word;
        }
        transpose(from, x);
        for (size_t i = 0; i < TRIPLES; i++) {
            V a = x[3 * i], b = x[3 * i + 1], c = x[3 * i + 2], *out = table + PER_TRIPLE * i;
            V carry;
            out[0] = a ^ b ^ c;
            out[1] = ~out[0];
            for (unsigned p = 0; p < 4; p++) { /* p: whether the query's bits of a and b are set */
                V u = p & 1 ? ~a : a, v = p & 2 ? ~b : b;
                carry = (u & v) | (c & (u | v));
                out[2 + p] = carry;
                out[2 + (p ^ 7)] = ~carry;
            }
        }
        table[PER_TRIPLE * TRIPLES] = x[63];
        table[PER_TRIPLE * TRIPLES + 1] = ~x[63];
    }
}

/* (x >> from & mask) in units of planes; both are constants. */
#define PLANE(x, from, mask) \
    (((from) < SHIFT ? (x) << (SHIFT - (from)) : (x) >> ((from) - SHIFT)) & ((uint64_t)(mask) << SHIFT))
#define AT(plane, offset) (*(const V *)(table + (plane) * sizeof(V) + (offset)))
#define SUM(i) AT(PER_TRIPLE * (i), PLANE(parities, i, 1))
#define CARRY(i) AT(PER_TRIPLE * (i) + 2, PLANE(word, 3 * (i), 7))
/* Four triples: two pairs of sums and six carries of weight 2, that is f, g and h of weight 4. */
#define FOUR(i)                                     \
    ADD(*ones, u, SUM(i), SUM((i) + 1));            \
    ADD(*twos, f, CARRY(i), CARRY((i) + 1));        \
    ADD(*ones, v, SUM((i) + 2), SUM((i) + 3));      \
    ADD(*twos, g, CARRY((i) + 2), CARRY((i) + 3));  \
    ADD(*twos, h, u, v);

/* Adds the differing bits of one word; the carry out of bit 5, weight 64, comes back. */
INLINE V add_word(const char *table, uint64_t word, uint64_t parities, V *ones, V *twos, V *fours, V *eights,
                         V *sixteens, V *thirtytwos) {
    V u, v, f, g, h, kept, e0, e1, s0, s1, t0, t1, out;
    FOUR(0)
    kept = h;
    ADD(*fours, e0, f, g);
    FOUR(4)
    ADD(*fours, e1, kept, f);
    ADD(*eights, s0, e0, e1);
    ADD(*fours, e0, g, h);
    FOUR(8)
    kept = h;
    ADD(*fours, e1, f, g);
    ADD(*eights, s1, e0, e1);
    ADD(*sixteens, t0, s0, s1);
    FOUR(12)
    ADD(*fours, e0, kept, f);
    ADD(*fours, e1, g, h);
    ADD(*eights, s0, e0, e1);
    FOUR(16)
    ADD(*fours, e0, f, g);
    ADD(*ones, u, SUM(20), AT(PER_TRIPLE * TRIPLES, PLANE(word, 63, 1)));
    ADD(*twos, f, CARRY(20), u);
    ADD(*fours, e1, h, f);
    ADD(*eights, s1, e0, e1);
    ADD(*sixteens, t1, s0, s1);
    ADD(*thirtytwos, out, t0, t1);
    return out;
}

/* Ones where a code of the tile is not below the limit of the probe. */
INLINE V beyond(const V *tables, const uint64_t *probe, size_t levels, size_t w) {
    const uint64_t *start = probe + 1, *words = start + levels;
    V ones = every(start[0]), twos = every(start[1]), fours = every(start[2]), eights = every(start[3]);
    V sixteens = every(start[4]), thirtytwos = every(start[5]);
    V higher[MOST_LEVELS - 6], over = every(0);
    for (size_t i = 6; i < levels; i++) higher[i - 6] = every(start[i]);
    for (size_t j = 0; j < w; j++) {
        const char *table = (const char *)(tables + PLANES * j);
        V carry = add_word(table, words[2 * j], words[2 * j + 1], &ones, &twos, &fours, &eights, &sixteens, &thirtytwos);
        for (size_t i = 0; i < levels - 6; i++) {
            V out = higher[i] & carry;
            higher[i] ^= carry;
            carry = out;
        }
        over |= carry;
    }
    return over;
}
