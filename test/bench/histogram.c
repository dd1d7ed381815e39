/* SPDX-License-Identifier: Apache-2.0 */
#include "histogram.h"

#include <string.h>

#define SUB (UINT64_C(1) << HISTOGRAM_SUB_BITS)

void histogram_clear(struct histogram *h)
{
    memset(h, 0, sizeof *h);
}

/* Values below SUB have a bin each; above, the highest SUB_BITS + 1 bits name the bin. */
static unsigned bin_of(uint64_t value)
{
    if (value < SUB)
        return (unsigned)value;
    unsigned shift = 63 - (unsigned)__builtin_clzll(value) - HISTOGRAM_SUB_BITS;
    return (unsigned)((shift << HISTOGRAM_SUB_BITS) + (value >> shift));
}

static uint64_t middle_of(unsigned bin)
{
    if (bin < SUB)
        return bin;
    unsigned shift = (bin >> HISTOGRAM_SUB_BITS) - 1;
    uint64_t low = (SUB + bin % SUB) << shift;
    return low + (UINT64_C(1) << shift) / 2;
}

void histogram_add(struct histogram *h, uint64_t ns)
{
    unsigned bin = bin_of(ns);

    h->bins[bin < HISTOGRAM_BINS ? bin : HISTOGRAM_BINS - 1]++;
    h->count++;
    if (ns > h->max)
        h->max = ns;
}

uint64_t histogram_percentile(const struct histogram *h, double share)
{
    double wanted = share * (double)h->count;
    uint64_t seen = 0;

    for (unsigned bin = 0; h->count > 0 && bin < HISTOGRAM_BINS; bin++) {
        seen += h->bins[bin];
        if (h->bins[bin] > 0 && (double)seen >= wanted)
            return middle_of(bin) < h->max ? middle_of(bin) : h->max;
    }
    return h->max;
}
