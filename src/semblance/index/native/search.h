/* Nearest, within and count for one path. See kernel.h; top.h keeps the matches, sliced.h serves many queries.
 *
 * The including file defines, beside what sliced.h asks for: distances(codes, n, w, query, out), which writes n
 * distances; ANY_BELOW(d, limit), whether one of 64 is; POPCOUNT(word); FEW; NAME, the path's Path.
 */
#include "sliced.h"
#include "top.h"

enum {
    WIDEST = 16,       /* words of a code up to which tables stay near */
    SPAN = 2048,       /* codes measured at a time for few queries */
    SAMPLED = 1 << 15, /* from so many codes on a sample sets the first limit */
    STRIDE = 61        /* one code in so many is in the sample; a prime, so that no period of the data is met */
};

INLINE uint32_t distance_of(const uint64_t *a, const uint64_t *b, size_t w) {
    uint32_t sum = 0;
    for (size_t j = 0; j < w; j++) sum += (uint32_t)POPCOUNT(a[j] ^ b[j]);
    return sum;
}

/* Few queries: distances of a span, then whatever is below the limit. */
static int scan_few(const Asked *asked, Top *tops) {
    uint16_t d[SPAN];
    size_t w = asked->w, span = SPAN / w < 64 ? 64 : SPAN / w;
    if (asked->q == 1) span = SPAN;
    for (size_t start = 0; start < asked->n; start += span) {
        size_t n = asked->n - start < span ? asked->n - start : span;
        for (size_t i = 0; i < asked->q; i++) {
            Top *top = tops + i;
            if (top->limit == 0) continue;
            distances(asked->codes + start * w, n, w, asked->queries + i * w, d);
            for (size_t j = n; j < (n + 63) / 64 * 64; j++) d[j] = UINT16_MAX;
            for (size_t j = 0; j < n; j += 64) {
                if (!ANY_BELOW(d + j, (uint16_t)top->limit)) continue;
                for (size_t r = j; r < j + 64; r++)
                    if (d[r] < top->limit && top_push(top, d[r], start + r)) return -1;
            }
        }
    }
    return 0;
}

/* The codes of a tile where `over` has no bit are below the query's limit, as it stood before the tile. */
NOINLINE int take(const Asked *asked, size_t tile, size_t i, V over, Top *top) {
    uint64_t lanes[LANES], any = 0;
    memcpy(lanes, &over, sizeof over);
    for (size_t lane = 0; lane < LANES; lane++) any |= ~lanes[lane];
    const uint64_t *query = asked->queries + i * asked->w;
    for (; any; any &= any - 1) {
        unsigned bit = POPCOUNT((any & (0 - any)) - 1);
        for (size_t lane = 0; lane < LANES; lane++) {
            size_t row = tile + LANES * bit + lane;
            if ((lanes[lane] >> bit) & 1) continue;
            if (row >= asked->n) return 0;
            uint32_t distance = distance_of(asked->codes + row * asked->w, query, asked->w);
            if (distance < top->limit && top_push(top, distance, row)) return -1;
        }
    }
    return 0;
}

INLINE int pass_tile(const Asked *asked, size_t tile, const V *table, const Probes *probes, size_t levels,
                            size_t w, Top *tops) {
    for (size_t i = 0; i < asked->q; i++) {
        uint64_t *probe = probe_at(probes, i);
        V over = every(0);
        if (probe[0] == COUNTS) {
            over = beyond(table, probe, levels, w);
            if (ALL_SET(over)) continue;
        } else if (probe[0] == DONE) {
            continue;
        }
        uint32_t before = tops[i].limit;
        if (take(asked, tile, i, over, tops + i)) return -1;
        if (tops[i].limit != before) probe_limit(probes, probe, tops[i].limit);
    }
    return 0;
}

/* Many queries: each tile is sliced once and all queries pass over it. */
static int scan_many(const Asked *asked, Top *tops) {
    Probes probes;
    size_t w = asked->w;
    probes_shape(&probes, w);
    probes.words = malloc(asked->q * probes.stride * sizeof *probes.words);
    char *memory = malloc((PLANES * w + 1) * sizeof(V));
    int failed = probes.words && memory ? 0 : -1;
    V *table = (V *)(memory + (sizeof(V) - (uintptr_t)memory % sizeof(V)) % sizeof(V));
    for (size_t i = 0; i < asked->q && !failed; i++) {
        probe_query(&probes, probe_at(&probes, i), asked->queries + i * w, w);
        probe_limit(&probes, probe_at(&probes, i), tops[i].limit);
    }
    for (size_t tile = 0; tile < asked->n && !failed; tile += TILE) {
        size_t n = asked->n - tile < TILE ? asked->n - tile : TILE;
        slice(asked->codes + tile * w, n, w, table);
        switch (w) {
        case 1: failed = pass_tile(asked, tile, table, &probes, 6, 1, tops); break;
        case 2: failed = pass_tile(asked, tile, table, &probes, 7, 2, tops); break;
        case 4: failed = pass_tile(asked, tile, table, &probes, 8, 4, tops); break;
        default: failed = pass_tile(asked, tile, table, &probes, probes.levels, w, tops);
        }
    }
    free(probes.words);
    free(memory);
    return failed;
}

static int many(const Asked *asked) { return asked->q >= FEW && asked->w <= WIDEST; }

/* A distance above every other, as a limit. */
static uint32_t no_limit(size_t w) { return 64 * w + 1 < UINT16_MAX ? (uint32_t)(64 * w + 1) : UINT16_MAX; }

static int scan(const Asked *asked, Top *tops) {
    return many(asked) ? scan_many(asked, tops) : scan_few(asked, tops);
}

/* How many queries pass together: enough to pay for the tables, as few as fit in memory where k is in the millions. */
static size_t together(size_t k) {
    size_t most = ((size_t)1 << 28) / (16 * k + 1);
    return most < 2048 ? most + 1 : 2048;
}

/* The limit that a sample of the codes suggests: its j-th distance, j such that k of all codes are below it but
 * once in about a thousand; then the query is asked again without. */
static int suggest(const Asked *asked, const Asked *sample, size_t k, uint32_t *limits) {
    double expected = (double)k * (double)sample->n / (double)asked->n;
    size_t j = 1;
    while ((double)j < expected + 1.5 || ((double)j - expected - 1.5) * ((double)j - expected - 1.5) < 9 * expected) j++;
    Top *tops = calloc(asked->q, sizeof *tops);
    Asked part = *sample;
    part.queries = asked->queries;
    part.q = asked->q;
    int failed = tops ? 0 : -1;
    for (size_t i = 0; i < asked->q && !failed; i++) failed = top_open(tops + i, j, no_limit(asked->w), 64 * asked->w);
    if (!failed) failed = scan(&part, tops);
    for (size_t i = 0; i < asked->q && !failed; i++) limits[i] = tops[i].limit + 1;
    for (size_t i = 0; i < asked->q && tops; i++) top_close(tops + i);
    free(tops);
    return failed;
}

static int sample_of(const Asked *asked, Asked *sample) {
    size_t w = asked->w;
    sample->n = (asked->n + STRIDE - 1) / STRIDE;
    sample->w = w;
    uint64_t *codes = malloc(sample->n * w * sizeof *codes);
    sample->codes = codes;
    if (!codes) return -1;
    for (size_t i = 0; i < sample->n; i++) memcpy(codes + i * w, asked->codes + i * STRIDE * w, w * sizeof *codes);
    return 0;
}

static int deliver(Top *top, size_t bits, size_t k, int64_t *rows, int32_t *found) {
    uint64_t *sorted = malloc((top->count + 1) * sizeof *sorted);
    if (!sorted) return -1;
    top_sorted(top, bits, sorted);
    for (size_t j = 0; j < k; j++) {
        rows[j] = j < top->count ? (int64_t)(sorted[j] & ROW_MASK) : -1;
        found[j] = j < top->count ? (int32_t)(sorted[j] >> ROW_BITS) : FAR;
    }
    free(sorted);
    return 0;
}

/* One pass: the queries of `asked`, under first limits where `sample` is given. */
static int nearest_pass(const Asked *asked, const Asked *sample, size_t k, int64_t *rows, int32_t *found) {
    size_t q = asked->q, bits = 64 * asked->w, most = k < asked->n ? k : asked->n;
    Top *tops = calloc(q, sizeof *tops);
    uint32_t *limits = malloc((q + 1) * sizeof *limits);
    int failed = tops && limits ? 0 : -1;
    for (size_t i = 0; i < q && !failed; i++) limits[i] = no_limit(asked->w);
    if (!failed && sample) failed = suggest(asked, sample, most, limits);
    for (size_t i = 0; i < q && !failed; i++) failed = top_open(tops + i, most, limits[i], bits);
    if (!failed) failed = scan(asked, tops);
    for (size_t i = 0; i < q && !failed; i++) {
        if (tops[i].total >= most) {
            failed = deliver(tops + i, bits, k, rows + i * k, found + i * k);
        } else {
            Asked again = {asked->codes, asked->n, asked->w, asked->queries + i * asked->w, 1};
            failed = nearest_pass(&again, NULL, k, rows + i * k, found + i * k);
        }
    }
    for (size_t i = 0; i < q && tops; i++) top_close(tops + i);
    free(tops);
    free(limits);
    return failed;
}

static int nearest(const Asked *asked, size_t k, int64_t *rows, int32_t *found) {
    Asked sample = {NULL, 0, 0, NULL, 0};
    if (asked->n == 0) {
        for (size_t i = 0; i < asked->q * k; i++) rows[i] = -1, found[i] = FAR;
        return 0;
    }
    int sampled = many(asked) && asked->n >= SAMPLED && k < asked->n / 8;
    int failed = sampled ? sample_of(asked, &sample) : 0;
    size_t step = together(k < asked->n ? k : asked->n);
    for (size_t i = 0; i < asked->q && !failed; i += step) {
        Asked some = *asked;
        some.queries += i * asked->w;
        some.q = asked->q - i < step ? asked->q - i : step;
        failed = nearest_pass(&some, sampled ? &sample : NULL, k, rows + i * k, found + i * k);
    }
    free((void *)sample.codes);
    return failed;
}

static int within(const Asked *asked, uint32_t radius, uint64_t **keys, int64_t *ends) {
    size_t q = asked->q, bits = 64 * asked->w, sum = 0;
    uint32_t limit = radius < no_limit(asked->w) ? radius + 1 : no_limit(asked->w);
    Top *tops = calloc(q + 1, sizeof *tops);
    int failed = tops ? 0 : -1;
    *keys = NULL;
    for (size_t i = 0; i < q && !failed; i++) failed = top_open(tops + i, 0, limit, bits);
    if (!failed) failed = scan(asked, tops);
    for (size_t i = 0; i < q && !failed; i++) sum += tops[i].count;
    if (!failed) *keys = malloc((sum + 1) * sizeof **keys);
    if (!*keys) failed = -1;
    ends[0] = 0;
    for (size_t i = 0; i < q && !failed; i++) {
        top_sorted(tops + i, bits, *keys + ends[i]);
        ends[i + 1] = ends[i] + (int64_t)tops[i].count;
    }
    for (size_t i = 0; i < q && tops; i++) top_close(tops + i);
    free(tops);
    return failed;
}

/* Four tallies in turn: equal distances in a row do not wait for each other. */
static int count(const Asked *asked, size_t bits, int64_t *out) {
    uint16_t d[SPAN];
    size_t w = asked->w, most = 64 * w + 1, span = SPAN / w < 64 ? 64 : SPAN / w;
    uint32_t *tally = malloc(4 * most * sizeof *tally);
    if (!tally) return -1;
    for (size_t i = 0; i < asked->q * (bits + 1); i++) out[i] = 0;
    /* 2^20 spans keep a tally below 2^32; the inner loop over queries re-uses a stretch of codes from cache. */
    for (size_t first = 0; first < asked->n; first += span * 64) {
        size_t last = asked->n - first < span * 64 ? asked->n : first + span * 64;
        for (size_t i = 0; i < asked->q; i++) {
            memset(tally, 0, 4 * most * sizeof *tally);
            for (size_t start = first; start < last; start += span) {
                size_t n = last - start < span ? last - start : span, j = 0;
                distances(asked->codes + start * w, n, w, asked->queries + i * w, d);
                for (; j + 4 <= n; j += 4) {
                    tally[d[j]]++;
                    tally[most + d[j + 1]]++;
                    tally[2 * most + d[j + 2]]++;
                    tally[3 * most + d[j + 3]]++;
                }
                for (; j < n; j++) tally[d[j]]++;
            }
            for (size_t t = 0; t < 4; t++)
                for (size_t b = 0; b <= bits; b++) out[i * (bits + 1) + b] += tally[t * most + b];
        }
    }
    free(tally);
    return 0;
}

const Path NAME = {usable, nearest, within, count};
