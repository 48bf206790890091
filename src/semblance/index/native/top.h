/* The matches of one query while codes pass by in rising order of row.
 *
 * `tally` counts accepted codes by distance; once k are known at `limit` or nearer, only strictly nearer ones can
 * still enter (a later row loses a tie), so `limit` falls with the k-th distance. `keys` is cleared of what has
 * lost whenever it is full, which keeps it in rising order of row: cost per accepted code is constant.
 * With k = 0 everything below `limit` is kept.
 */
#ifndef SEMBLANCE_TOP_H
#define SEMBLANCE_TOP_H

#include <stdlib.h>
#include <string.h>

#include "kernel.h"

typedef struct {
    uint64_t *keys; /* distance << 48 | row */
    uint32_t *tally;
    size_t k, count, room;
    size_t below; /* accepted and nearer than limit */
    size_t total; /* accepted so far */
    uint32_t limit;
} Top;

static int top_open(Top *top, size_t k, uint32_t limit, size_t bits) {
    top->k = k;
    top->count = top->below = top->total = 0;
    top->room = k + k / 2 + 32;
    top->limit = limit;
    top->keys = malloc(top->room * sizeof *top->keys);
    top->tally = calloc(bits + 2, sizeof *top->tally);
    return top->keys && top->tally ? 0 : -1;
}

static void top_close(Top *top) {
    free(top->keys);
    free(top->tally);
    top->keys = NULL;
    top->tally = NULL;
}

/* Keeps the best k: all below the limit, and of those at it the first. */
static void top_clear(Top *top) {
    size_t kept = 0, ties = top->k - top->below;
    for (size_t i = 0; i < top->count; i++) {
        uint32_t distance = (uint32_t)(top->keys[i] >> ROW_BITS);
        if (distance < top->limit || (distance == top->limit && ties && ties--)) top->keys[kept++] = top->keys[i];
    }
    top->count = kept;
}

static int top_room(Top *top) {
    if (top->k) {
        top_clear(top);
        return 0;
    }
    uint64_t *larger = realloc(top->keys, 2 * top->room * sizeof *larger);
    if (!larger) return -1;
    top->keys = larger;
    top->room *= 2;
    return 0;
}

/* Takes a code at a distance below the limit. */
static inline int top_push(Top *top, uint32_t distance, uint64_t row) {
    if (top->count == top->room && top_room(top)) return -1;
    top->keys[top->count++] = (uint64_t)distance << ROW_BITS | row;
    top->total++;
    top->tally[distance]++;
    if (top->k) {
        top->below++;
        while (top->below >= top->k) top->below -= top->tally[--top->limit];
    }
    return 0;
}

/* The keys in order of (distance, row) into `out`, which holds `count` (k at most); rows have come in order. */
static void top_sorted(Top *top, size_t bits, uint64_t *out) {
    if (top->k && top->total >= top->k) top_clear(top);
    memset(top->tally, 0, (bits + 2) * sizeof *top->tally);
    for (size_t i = 0; i < top->count; i++) top->tally[(top->keys[i] >> ROW_BITS) + 1]++;
    for (size_t d = 0; d < bits; d++) top->tally[d + 1] += top->tally[d];
    for (size_t i = 0; i < top->count; i++) out[top->tally[top->keys[i] >> ROW_BITS]++] = top->keys[i];
}

#endif
