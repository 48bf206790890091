/* Multi-index hashing (Norouzi, Punjani, Fleet 2012): see index/mih.py for the method and the names.
 *
 * A table holds every distinct code, ordered by one substring of its bits. The codes of a bucket stand together,
 * first word 0 of all of them, then word 1 and so on, so that one vector instruction compares several codes.
 */
#include "kernel.h"

#include <stdlib.h>
#include <string.h>

#if defined(__GNUC__)
#define INLINE static inline __attribute__((always_inline))
#define PREFETCH(address) __builtin_prefetch(address)
INLINE int bits_set(uint64_t x) { return __builtin_popcountll(x); }
#else
#define INLINE static __forceinline
#define PREFETCH(address) ((void)(address))
INLINE int bits_set(uint64_t x) {
    x -= (x >> 1) & 0x5555555555555555u;
    x = (x & 0x3333333333333333u) + ((x >> 2) & 0x3333333333333333u);
    x = (x + (x >> 4)) & 0x0f0f0f0f0f0f0f0fu;
    return (int)((x * 0x0101010101010101u) >> 56);
}
#endif

#if X86_PATHS
#include <immintrin.h>
#define WITH_POPCNT __attribute__((target("popcnt")))
#define WITH_AVX512 __attribute__((target("popcnt,avx512f,avx512vpopcntdq")))
#endif

#define SEVERAL ((uint32_t)1 << 31) /* from here on a number in `where` is a group of equal codes, not a row */
#define AHEAD 8         /* buckets whose codes are on their way while one is read */
#define SOON 2048       /* bytes of a bucket that are asked for ahead; the processor follows by itself */
#define GROUP 64        /* buckets looked up at a time */
#define CHUNK 256       /* codes compared with one threshold */
#define PATIENCE 16     /* codes that may wait for their numbers */

typedef struct {
    int64_t n;              /* distinct codes */
    int64_t count;          /* rows */
    int64_t groups, posted; /* of equal codes, and the rows in them */
    int32_t m, words, bits, level;
    int64_t lookup_cost, code_cost, hit_cost;
    const int32_t *low;     /* (m + 1) where each substring begins */
    const int64_t *first;   /* (m) where each table's offsets begin */
    const uint32_t *offsets; /* per table 2^b + 1: where each bucket begins */
    const uint64_t *codes;  /* (m, n * words) */
    const uint32_t *where;  /* (m, n): the row of the code at each position, or SEVERAL + its group */
    const uint32_t *start;  /* (groups + 1): where each group's rows begin */
    const uint32_t *rows;   /* (posted): the rows of each group, rising */
    const uint8_t *allowed; /* (count), or NULL: all */
} Tables;

typedef struct {
    uint64_t *keys; /* (distance << 32 | row): a heap with the largest on top, or a list */
    int64_t size, room;
    uint32_t limit; /* largest distance that is still wanted */
    int64_t left;   /* of the budget */
} Search;

INLINE uint32_t field(const uint64_t *x, int64_t stride, int low, int bits) {
    const uint64_t *word = x + (low >> 6) * stride;
    int shift = low & 63;
    uint64_t value = word[0] >> shift;
    if (shift + bits > 64) value |= word[stride] << (64 - shift);
    return (uint32_t)(value & (((uint64_t)1 << bits) - 1));
}

/* ---------------------------------------------------------------------------------------------- building */

/* Bits in another order: `table[byte][value]` is what one byte of a code becomes, (bytes, 256, words). */
EXPORT void semblance_mih_permute(const uint64_t *from, int64_t n, int32_t words, int32_t bytes,
                                  const uint64_t *table, uint64_t *to) {
    memset(to, 0, (size_t)n * (size_t)words * 8);
    for (int64_t i = 0; i < n; i++)
        for (int32_t k = 0; k < bytes; k++) {
            uint64_t value = (from[i * words + (k >> 3)] >> (8 * (k & 7))) & 255;
            const uint64_t *part = table + ((int64_t)k * 256 + (int64_t)value) * words;
            for (int32_t w = 0; w < words; w++) to[i * words + w] |= part[w];
        }
}

/* Codes (n, words) sorted into the buckets of one substring, in their order within a bucket, and their `numbers`
 * (NULL: 0 to n-1) in `where`; -1: no memory. */
EXPORT int32_t semblance_mih_sort(const uint64_t *from, const uint32_t *numbers, int64_t n, int32_t words,
                                  int32_t low, int32_t bits, uint32_t *offsets, uint64_t *codes,
                                  uint32_t *where) {
    int64_t size = (int64_t)1 << bits;
    uint32_t *next = malloc((size_t)size * 4);
    if (!next) return -1;
    memset(offsets, 0, (size_t)(size + 1) * 4);
    for (int64_t i = 0; i < n; i++) offsets[field(from + i * words, 1, low, bits) + 1]++;
    for (int64_t i = 0; i < size; i++) offsets[i + 1] += offsets[i];
    memcpy(next, offsets, (size_t)size * 4);
    for (int64_t i = 0; i < n; i++) {
        uint32_t bucket = field(from + i * words, 1, low, bits), at = next[bucket]++, begin = offsets[bucket];
        int64_t stride = offsets[bucket + 1] - begin;
        uint64_t *place = codes + (int64_t)begin * words + (at - begin);
        for (int32_t w = 0; w < words; w++) place[w * stride] = from[i * words + w];
        where[at] = numbers ? numbers[i] : (uint32_t)i;
    }
    free(next);
    return 0;
}

INLINE int compare(const uint64_t *codes, int64_t stride, int32_t words, uint32_t a, uint32_t b) {
    for (int32_t w = 0; w < words; w++) {
        uint64_t x = codes[w * stride + a], y = codes[w * stride + b];
        if (x != y) return x < y ? -1 : 1;
    }
    return 0;
}

/* Bottom-up merge sort of positions 0 to n-1 by code; stable. The answer is in `order` or in `other`. */
static uint32_t *sorted(const uint64_t *codes, int32_t words, uint32_t n, uint32_t *order, uint32_t *other) {
    for (uint32_t i = 0; i < n; i++) order[i] = i;
    for (uint64_t width = 1; width < n; width *= 2) {
        for (uint64_t begin = 0; begin < n; begin += 2 * width) {
            uint64_t middle = begin + width < n ? begin + width : n;
            uint64_t end = begin + 2 * width < n ? begin + 2 * width : n;
            uint64_t a = begin, b = middle, to = begin;
            if (middle == end || compare(codes, n, words, order[middle - 1], order[middle]) <= 0) {
                memcpy(other + begin, order + begin, (size_t)(end - begin) * 4);
                continue;
            }
            while (a < middle && b < end)
                other[to++] = compare(codes, n, words, order[a], order[b]) <= 0 ? order[a++] : order[b++];
            while (a < middle) other[to++] = order[a++];
            while (b < end) other[to++] = order[b++];
        }
        uint32_t *swap = order;
        order = other;
        other = swap;
    }
    return order;
}

/* For each row the lowest row with the same code, from a table whose rows rise in each bucket; -1: no memory. */
EXPORT int32_t semblance_mih_leaders(const uint32_t *offsets, int64_t buckets, const uint64_t *table,
                                     const uint32_t *rows, int32_t words, uint32_t *leaders) {
    int64_t most = 1;
    for (int64_t i = 0; i < buckets; i++)
        if ((int64_t)offsets[i + 1] - offsets[i] > most) most = (int64_t)offsets[i + 1] - offsets[i];
    uint32_t *space = malloc((size_t)most * 8);
    if (!space) return -1;
    for (int64_t i = 0; i < buckets; i++) {
        uint32_t begin = offsets[i], n = offsets[i + 1] - begin, leader = 0;
        const uint64_t *bucket = table + (int64_t)begin * words;
        const uint32_t *order = sorted(bucket, words, n, space, space + most);
        for (uint32_t k = 0; k < n; k++) {
            if (k == 0 || compare(bucket, n, words, order[k - 1], order[k]) != 0) leader = rows[begin + order[k]];
            leaders[rows[begin + order[k]]] = leader;
        }
    }
    free(space);
    return 0;
}

/* --------------------------------------------------------------------------------------------- searching */

/* Which of a bucket's codes [from, to) lie within `limit` of the query, and how far. */
INLINE int near_one_by_one(const uint64_t *bucket, int64_t stride, int64_t from, int64_t to,
                           const uint64_t *query, int32_t words, uint32_t limit, uint32_t *hits,
                           uint32_t *distances) {
    int found = 0;
    int64_t i = from;
    for (; i + 4 <= to; i += 4) { /* hardly ever is one of four near enough */
        uint32_t a = 0, b = 0, c = 0, d = 0;
        for (int32_t w = 0; w < words; w++) {
            const uint64_t *at = bucket + w * stride + i;
            a += (uint32_t)bits_set(at[0] ^ query[w]);
            b += (uint32_t)bits_set(at[1] ^ query[w]);
            c += (uint32_t)bits_set(at[2] ^ query[w]);
            d += (uint32_t)bits_set(at[3] ^ query[w]);
        }
        if (a > limit && b > limit && c > limit && d > limit) continue;
        const uint32_t all[4] = {a, b, c, d};
        for (int lane = 0; lane < 4; lane++) {
            hits[found] = (uint32_t)(i + lane);
            distances[found] = all[lane];
            found += all[lane] <= limit;
        }
    }
    for (; i < to; i++) {
        uint32_t distance = 0;
        for (int32_t w = 0; w < words; w++) distance += (uint32_t)bits_set(bucket[w * stride + i] ^ query[w]);
        hits[found] = (uint32_t)i;
        distances[found] = distance;
        found += distance <= limit;
    }
    return found;
}

#if X86_PATHS
WITH_AVX512 INLINE int listed(uint32_t mask, __m512i distance, int64_t i, uint32_t *hits, uint32_t *distances) {
    uint64_t all[8];
    int found = 0;
    _mm512_storeu_si512(all, distance);
    for (; mask; mask &= mask - 1) {
        int lane = __builtin_ctz(mask);
        hits[found] = (uint32_t)(i + lane);
        distances[found++] = (uint32_t)all[lane];
    }
    return found;
}

WITH_AVX512 static int near_avx512(const uint64_t *bucket, int64_t stride, int64_t from, int64_t to,
                                   const uint64_t *query, int32_t words, uint32_t limit, uint32_t *hits,
                                   uint32_t *distances) {
    const __m512i most = _mm512_set1_epi64(limit);
    int found = 0;
    int64_t i = from;
    for (; i + 32 <= to; i += 32) {
        __m512i a = _mm512_setzero_si512(), b = a, c = a, d = a;
        __mmask8 any = 0;
        for (int32_t w = 0; w < words; w++) {
            const __m512i q = _mm512_set1_epi64((long long)query[w]);
            const uint64_t *at = bucket + w * stride + i;
            a = _mm512_add_epi64(a, _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(at), q)));
            b = _mm512_add_epi64(b, _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(at + 8), q)));
            c = _mm512_add_epi64(c, _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(at + 16), q)));
            d = _mm512_add_epi64(d, _mm512_popcnt_epi64(_mm512_xor_si512(_mm512_loadu_si512(at + 24), q)));
            any = _mm512_cmple_epi64_mask(_mm512_min_epu64(_mm512_min_epu64(a, b), _mm512_min_epu64(c, d)), most);
            if (!any) break;
        }
        if (!any) continue;
        found += listed(_mm512_cmple_epi64_mask(a, most), a, i, hits + found, distances + found);
        found += listed(_mm512_cmple_epi64_mask(b, most), b, i + 8, hits + found, distances + found);
        found += listed(_mm512_cmple_epi64_mask(c, most), c, i + 16, hits + found, distances + found);
        found += listed(_mm512_cmple_epi64_mask(d, most), d, i + 24, hits + found, distances + found);
    }
    for (; i < to; i += 8) {
        __mmask8 live = to - i >= 8 ? 255 : (__mmask8)((1 << (to - i)) - 1), ok = live;
        __m512i a = _mm512_setzero_si512();
        for (int32_t w = 0; w < words && ok; w++) {
            const uint64_t *at = bucket + w * stride + i;
            /* a masked load is not followed by the prefetcher: only for the last few */
            __m512i x = live == 255 ? _mm512_loadu_si512(at) : _mm512_maskz_loadu_epi64(live, at);
            x = _mm512_xor_si512(x, _mm512_set1_epi64((long long)query[w]));
            a = _mm512_add_epi64(a, _mm512_popcnt_epi64(x));
            ok = _mm512_mask_cmple_epi64_mask(live, a, most);
        }
        if (ok) found += listed(ok, a, i, hits + found, distances + found);
    }
    return found;
}
#else
#define near_avx512 near_one_by_one
#endif

/* The k smallest keys: a heap with the largest on top. */
INLINE void keep(Search *search, uint64_t key) {
    uint64_t *heap = search->keys;
    int64_t i, room = search->room;
    if (search->size < room) {
        for (i = search->size++; i > 0 && heap[(i - 1) / 2] < key; i = (i - 1) / 2) heap[i] = heap[(i - 1) / 2];
        heap[i] = key;
    } else {
        int64_t child;
        for (i = 0; (child = 2 * i + 1) < room; i = child) {
            if (child + 1 < room && heap[child] < heap[child + 1]) child++;
            if (key >= heap[child]) break;
            heap[i] = heap[child];
        }
        heap[i] = key;
    }
    if (search->size == room) search->limit = (uint32_t)(heap[0] >> 32);
}

/* Whether this is the first time that the code is met: it lies at more than s flips in the tables before j and
 * at s or more in those after it. */
INLINE int met_first(const Tables *t, const uint64_t *bucket, int64_t stride, const uint64_t *query, int s, int j) {
    for (int i = 0; i < t->m; i++) {
        int low = t->low[i], bits = t->low[i + 1] - low;
        uint32_t flips = field(bucket, stride, low, bits) ^ field(query, 1, low, bits);
        if (i != j && bits_set(flips) < s + (i < j)) return 0;
    }
    return 1;
}

/* Takes in one row; a list counts on beyond its room. */
INLINE void take_row(const Tables *t, Search *search, uint32_t row, uint32_t distance, int listing) {
    uint64_t key = ((uint64_t)distance << 32) | row;
    if (row >= t->count || (t->allowed && !t->allowed[row])) return;
    if (listing) {
        if (search->size < search->room) search->keys[search->size] = key;
        search->size++;
    } else if (search->size < search->room || key < search->keys[0]) {
        keep(search, key);
    }
}

INLINE void take(const Tables *t, Search *search, uint32_t number, uint32_t distance, int listing) {
    if (number < SEVERAL) {
        take_row(t, search, number, distance, listing);
    } else if (number - SEVERAL < t->groups) { /* else the file is damaged, as it is where rows lead outside */
        uint32_t row = t->start[number - SEVERAL], end = t->start[number - SEVERAL + 1];
        for (; row < end && row < t->posted; row++) take_row(t, search, t->rows[row], distance, listing);
    }
}

/* Codes that are near enough wait here until their numbers have come from memory. */
typedef struct {
    const uint32_t *where[CHUNK + PATIENCE];
    uint32_t distances[CHUNK + PATIENCE];
    int size;
} Waiting;

INLINE void take_all(const Tables *t, Search *search, Waiting *waiting, int listing) {
    for (int i = 0; i < waiting->size; i++)
        if (waiting->distances[i] <= search->limit)
            take(t, search, *waiting->where[i], waiting->distances[i], listing);
    waiting->size = 0;
}

INLINE void ask_for(const Tables *t, const uint64_t *codes, uint32_t from, uint32_t to) {
    const char *at = (const char *)(codes + (int64_t)from * t->words);
    const char *end = (const char *)(codes + (int64_t)to * t->words);
    if (end > at + SOON) end = at + SOON;
    for (; at < end; at += 64) PREFETCH(at);
}

/* Every bucket at exactly s flips from the query's substring j. 0: the budget is used up. */
INLINE int visit(const Tables *t, Search *search, const uint64_t *query, int s, int j, int listing, int wide) {
    int low = t->low[j], bits = t->low[j + 1] - low, more = 1;
    uint32_t own = field(query, 1, low, bits), from[GROUP], to[GROUP], hits[CHUNK + 32], distances[CHUNK + 32];
    const uint32_t *offsets = t->offsets + t->first[j];
    const uint64_t *codes = t->codes + (int64_t)j * t->n * t->words;
    const uint32_t *where = t->where + (int64_t)j * t->n;
    Waiting waiting;
    waiting.size = 0;
    uint64_t flips = ((uint64_t)1 << s) - 1, end = (uint64_t)1 << bits;
    while (more) {
        int looked = 0;
        int64_t cost = 0;
        while (looked < GROUP && more) {
            uint32_t bucket = own ^ (uint32_t)flips;
            uint32_t stop = offsets[bucket + 1];
            to[looked] = stop <= t->n ? stop : (uint32_t)t->n; /* a damaged file must not lead outside */
            from[looked] = offsets[bucket] <= to[looked] ? offsets[bucket] : to[looked];
            cost += t->lookup_cost + t->code_cost * (to[looked] - from[looked]);
            looked++;
            uint64_t least = flips & (~flips + 1), next = flips + least;
            flips = s == 0 ? end : ((((next ^ flips) >> 2) / least) | next);
            more = flips < end;
        }
        if ((search->left -= cost) < 0) return 0;
        for (int i = 0; i < AHEAD && i < looked; i++) ask_for(t, codes, from[i], to[i]);
        for (int i = 0; i < looked; i++) {
            int64_t stride = (int64_t)to[i] - from[i];
            const uint64_t *bucket = codes + (int64_t)from[i] * t->words;
            if (i + AHEAD < looked) ask_for(t, codes, from[i + AHEAD], to[i + AHEAD]);
            for (int64_t begin = 0; begin < stride; begin += CHUNK) {
                int64_t stop = begin + CHUNK < stride ? begin + CHUNK : stride;
                int found = wide ? near_avx512(bucket, stride, begin, stop, query, t->words, search->limit, hits,
                                               distances)
                                 : near_one_by_one(bucket, stride, begin, stop, query, t->words, search->limit,
                                                   hits, distances);
                search->left -= found * t->hit_cost;
                if (waiting.size >= PATIENCE) take_all(t, search, &waiting, listing);
                for (int h = 0; h < found; h++) {
                    const uint32_t *at = where + from[i] + hits[h];
                    if (distances[h] > search->limit || !met_first(t, bucket + hits[h], stride, query, s, j)) continue;
                    if (!listing && search->size < search->room) {
                        take(t, search, *at, distances[h], listing);
                        continue;
                    }
                    PREFETCH(at);
                    waiting.where[waiting.size] = at;
                    waiting.distances[waiting.size++] = distances[h];
                }
            }
        }
    }
    take_all(t, search, &waiting, listing);
    return 1;
}

/* Substrings at 0 flips, then 1 and so on, until no code that was not met can be near enough.
 * After substring j at s flips, every code within m * s + j was met. 0: the budget is used up. */
INLINE int search_one(const Tables *t, Search *search, const uint64_t *query, int listing, int wide) {
    for (int s = 0; s <= t->bits; s++)
        for (int j = 0; j < t->m; j++) {
            int bits = t->low[j + 1] - t->low[j];
            if ((int64_t)search->limit < (int64_t)t->m * s + j && (listing || search->size == search->room))
                return 1;
            if (s > bits) continue;
            double buckets = 1;
            for (int i = 0; i < s; i++) buckets = buckets * (bits - i) / (i + 1);
            double mean = (double)t->n / (double)((uint64_t)1 << bits);
            double price = buckets * ((double)t->lookup_cost + mean * (double)t->code_cost);
            if (price > (double)search->left) return 0;
            if (!visit(t, search, query, s, j, listing, wide)) return 0;
        }
    return 1;
}

static void in_order(uint64_t *heap, int64_t size) {
    while (size > 1) {
        uint64_t largest = heap[0], key = heap[--size];
        int64_t i, child;
        for (i = 0; (child = 2 * i + 1) < size; i = child) {
            if (child + 1 < size && heap[child] < heap[child + 1]) child++;
            if (key >= heap[child]) break;
            heap[i] = heap[child];
        }
        heap[i] = key;
        heap[size] = largest;
    }
}

/* What queries may cost: each of them, and all of them together. */
typedef struct {
    int64_t each, all;
} Budget;

INLINE int within_budget(const Tables *t, Search *search, const uint64_t *query, Budget *budget, int listing,
                         int wide) {
    int64_t mine = budget->each < budget->all ? budget->each : budget->all;
    search->left = mine;
    int done = mine > 0 && search_one(t, search, query, listing, wide);
    budget->all -= done ? mine - search->left : mine;
    return done;
}

INLINE void nearest_all(const Tables *t, const uint64_t *queries, int64_t q, int64_t k, Budget budget,
                        uint64_t *keys, uint8_t *done, int wide) {
    for (int64_t i = 0; i < q; i++) {
        Search search = {keys + i * k, 0, k, (uint32_t)t->bits, 0};
        done[i] = (uint8_t)within_budget(t, &search, queries + i * t->words, &budget, 0, wide);
        in_order(search.keys, search.size);
        for (int64_t rest = search.size; rest < k; rest++) search.keys[rest] = UINT64_MAX;
    }
}

INLINE int64_t within_all(const Tables *t, const uint64_t *queries, int64_t q, int64_t radius, Budget budget,
                          uint64_t *keys, int64_t room, int64_t *ends, uint8_t *done, int wide) {
    int64_t total = 0;
    for (int64_t i = 0; i < q; i++) {
        int64_t there = total < room ? total : room;
        Search search = {keys + there, 0, room - there, (uint32_t)radius, 0};
        done[i] = (uint8_t)within_budget(t, &search, queries + i * t->words, &budget, 1, wide);
        if (done[i]) total += search.size;
        ends[i] = total;
    }
    return total;
}

#if X86_PATHS
WITH_AVX512 static void nearest_avx512(const Tables *t, const uint64_t *queries, int64_t q, int64_t k,
                                       Budget budget, uint64_t *keys, uint8_t *done) {
    nearest_all(t, queries, q, k, budget, keys, done, 1);
}

WITH_POPCNT static void nearest_popcnt(const Tables *t, const uint64_t *queries, int64_t q, int64_t k,
                                       Budget budget, uint64_t *keys, uint8_t *done) {
    nearest_all(t, queries, q, k, budget, keys, done, 0);
}

WITH_AVX512 static int64_t within_avx512(const Tables *t, const uint64_t *queries, int64_t q, int64_t radius,
                                         Budget budget, uint64_t *keys, int64_t room, int64_t *ends,
                                         uint8_t *done) {
    return within_all(t, queries, q, radius, budget, keys, room, ends, done, 1);
}

WITH_POPCNT static int64_t within_popcnt(const Tables *t, const uint64_t *queries, int64_t q, int64_t radius,
                                         Budget budget, uint64_t *keys, int64_t room, int64_t *ends,
                                         uint8_t *done) {
    return within_all(t, queries, q, radius, budget, keys, room, ends, done, 0);
}
#endif

/* The k nearest of each query: `keys` (q, k) in rising order, all ones where there are fewer; `done` (q,) is 0
 * where the budget, for `each` query or for `all`, was used up, and the keys are to be thrown away. */
EXPORT void semblance_mih_nearest(const Tables *t, const uint64_t *queries, int64_t q, int64_t k, int64_t each,
                                  int64_t all, uint64_t *keys, uint8_t *done) {
    Budget budget = {each, all};
#if X86_PATHS
    if (t->level == 2) {
        nearest_avx512(t, queries, q, k, budget, keys, done);
        return;
    }
    if (t->level == 1) {
        nearest_popcnt(t, queries, q, k, budget, keys, done);
        return;
    }
#endif
    nearest_all(t, queries, q, k, budget, keys, done, 0);
}

/* All within the radius: keys of query i end at `ends[i]`, in no order. How many there are; where that is more
 * than `room`, call again with as much. */
EXPORT int64_t semblance_mih_within(const Tables *t, const uint64_t *queries, int64_t q, int64_t radius,
                                    int64_t each, int64_t all, uint64_t *keys, int64_t room, int64_t *ends,
                                    uint8_t *done) {
    Budget budget = {each, all};
#if X86_PATHS
    if (t->level == 2) return within_avx512(t, queries, q, radius, budget, keys, room, ends, done);
    if (t->level == 1) return within_popcnt(t, queries, q, radius, budget, keys, room, ends, done);
#endif
    return within_all(t, queries, q, radius, budget, keys, room, ends, done, 0);
}
