/* SPDX-License-Identifier: Apache-2.0 */
/*
 * A histogram of times in nanoseconds with logarithmic bins, 64 to each doubling: a percentile is
 * off by less than 1.6 %, whatever the range. Of fixed size, so that recording costs the same at
 * the first value and at the hundred millionth.
 */
#ifndef BENCH_HISTOGRAM_H
#define BENCH_HISTOGRAM_H

#include <stdint.h>

#define HISTOGRAM_SUB_BITS 6
#define HISTOGRAM_BINS     ((64 - HISTOGRAM_SUB_BITS) << HISTOGRAM_SUB_BITS)

struct histogram {
    uint64_t count;
    uint64_t max;
    uint64_t bins[HISTOGRAM_BINS];
};

void histogram_clear(struct histogram *h);
void histogram_add(struct histogram *h, uint64_t ns);
/* The time that `share` (0 to 1) of the values do not exceed, in ns; 0 if there are none. */
uint64_t histogram_percentile(const struct histogram *h, double share);

#endif
