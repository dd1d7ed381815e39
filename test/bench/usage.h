/* SPDX-License-Identifier: Apache-2.0 */
/* What the server under load uses, as /proc tells it, and the clocks of the benchmarks. */
#ifndef BENCH_USAGE_H
#define BENCH_USAGE_H

#include <stdint.h>
#include <sys/types.h>

/* CPU time of a process with all its threads, in ns; its resolution is a clock tick (10 ms). */
uint64_t usage_cpu_ns(pid_t pid);
/* Resident memory in bytes. */
uint64_t usage_resident(pid_t pid);

uint64_t clock_monotonic_ns(void);
int64_t clock_unix_ns(void);

#endif
