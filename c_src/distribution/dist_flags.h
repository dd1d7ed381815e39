/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Capability flags of the distribution protocol (OTP: kernel/include/dist.hrl,
 * erts/emulator/beam/dist.h). Constants only; nothing here owns memory. What a flag in
 * DIST_FLAGS_OURS promises, the rest of distribution/ must do.
 */
#ifndef DISTRIBUTION_FLAGS_H
#define DISTRIBUTION_FLAGS_H

#include <stdint.h>

#define DIST_FLAG_PUBLISHED           UINT64_C(0x1)
#define DIST_FLAG_EXTENDED_REFERENCES UINT64_C(0x4)
#define DIST_FLAG_DIST_MONITOR        UINT64_C(0x8)
#define DIST_FLAG_FUN_TAGS            UINT64_C(0x10)
#define DIST_FLAG_DIST_MONITOR_NAME   UINT64_C(0x20)
#define DIST_FLAG_NEW_FUN_TAGS        UINT64_C(0x80)
#define DIST_FLAG_EXTENDED_PIDS_PORTS UINT64_C(0x100)
#define DIST_FLAG_EXPORT_PTR_TAG      UINT64_C(0x200)
#define DIST_FLAG_BIT_BINARIES        UINT64_C(0x400)
#define DIST_FLAG_NEW_FLOATS          UINT64_C(0x800)
#define DIST_FLAG_SMALL_ATOM_TAGS     UINT64_C(0x4000)
#define DIST_FLAG_UTF8_ATOMS          UINT64_C(0x10000)
#define DIST_FLAG_MAP_TAG             UINT64_C(0x20000)
#define DIST_FLAG_BIG_CREATION        UINT64_C(0x40000)
#define DIST_FLAG_HANDSHAKE_23        UINT64_C(0x1000000)
#define DIST_FLAG_UNLINK_ID           UINT64_C(0x2000000)
/* The protocol chapter says 1 bsl 36; this is the value that the sources use and nodes send. */
#define DIST_FLAG_MANDATORY_25_DIGEST UINT64_C(0x4000000)
#define DIST_FLAG_SPAWN               (UINT64_C(0x1) << 32)
#define DIST_FLAG_NAME_ME             (UINT64_C(0x2) << 32)
#define DIST_FLAG_V4_NC               (UINT64_C(0x4) << 32)
#define DIST_FLAG_ALIAS               (UINT64_C(0x8) << 32)

/* What OTP 25 requires of a peer. MANDATORY_25_DIGEST stands for all of them. */
/* clang-format off */
#define DIST_MANDATORY(X)  \
    X(EXTENDED_REFERENCES) \
    X(FUN_TAGS)            \
    X(NEW_FUN_TAGS)        \
    X(EXTENDED_PIDS_PORTS) \
    X(EXPORT_PTR_TAG)      \
    X(BIT_BINARIES)        \
    X(NEW_FLOATS)          \
    X(UTF8_ATOMS)          \
    X(MAP_TAG)             \
    X(BIG_CREATION)        \
    X(HANDSHAKE_23)
/* clang-format on */
#define DIST_OR(name)        | DIST_FLAG_##name
#define DIST_FLAGS_MANDATORY (UINT64_C(0) DIST_MANDATORY(DIST_OR))

/*
 * What we send. No PUBLISHED: that makes the node hidden. No DIST_HDR_ATOM_CACHE, FRAGMENTS,
 * EXIT_PAYLOAD or SEND_SENDER: then peers use plain pass-through frames. OTP 26 refuses a peer
 * without UNLINK_ID and V4_NC.
 */
#define DIST_FLAGS_OURS                                                                \
    (DIST_FLAGS_MANDATORY | DIST_FLAG_DIST_MONITOR | DIST_FLAG_DIST_MONITOR_NAME |     \
     DIST_FLAG_SMALL_ATOM_TAGS | DIST_FLAG_UNLINK_ID | DIST_FLAG_MANDATORY_25_DIGEST | \
     DIST_FLAG_SPAWN | DIST_FLAG_V4_NC | DIST_FLAG_ALIAS)

#endif
