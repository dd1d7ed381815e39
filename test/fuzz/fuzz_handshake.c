/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Both roles of the handshake. The first byte chooses the role, the verdict on the peer and whether
 * the peer knows the cookie (its digests then always fit), the second how the rest is cut into
 * pieces. The same bytes in one piece must lead to the same end.
 */
#include "fuzz.h"

#include "distribution/dist_flags.h"
#include "distribution/handshake.h"

#include <openssl/crypto.h>
#include <stdlib.h>
#include <string.h>

static bool knows_cookie;

/* Instead of OpenSSL's, which compares digests in constant time. */
int CRYPTO_memcmp(const void *a, const void *b, size_t size)
{
    return knows_cookie ? 0 : memcmp(a, b, size);
}

static enum handshake_verdict judge(void *ctx, const char *peer_name)
{
    fuzz_check(node_name_is_valid(peer_name, strlen(peer_name)));
    return *(const enum handshake_verdict *)ctx;
}

static void start(struct handshake *hs, bool accepts, enum handshake_verdict *verdict)
{
    static const struct handshake_config config = {
        .node_name = "macula_nat@127.0.0.1",
        .creation = 0x01010101,
        .flags = DIST_FLAGS_OURS,
        .cookie = (const uint8_t *)"cookie",
        .cookie_len = 6,
    };

    fuzz_begin();
    if (accepts)
        fuzz_check(handshake_accept(hs, &config, judge, verdict) == 0);
    else
        fuzz_check(handshake_connect(hs, &config, "peer@127.0.0.1") == 0);
}

static int feed(struct handshake *hs, struct slice input, size_t piece, size_t *taken)
{
    int result = 0;

    *taken = 0;
    while (result == 0 && *taken < input.len) {
        size_t size = input.len - *taken < piece ? input.len - *taken : piece;
        size_t used = 0, out;
        struct slice part = fuzz_copy(input.data + *taken, size);

        result = handshake_feed(hs, part.data, part.len, &used);
        free((void *)part.data);
        fuzz_check(used <= size);
        fuzz_check(result != 0 || used == size);
        *taken += used;
        handshake_output(hs, &out);
        fuzz_check(out <= HANDSHAKE_OUT_MAX);
    }
    fuzz_check(result >= 0 || (hs->error[0] != 0 && strlen(hs->error) < sizeof hs->error));
    fuzz_check(result != 1 || node_name_is_valid(hs->peer_name, strlen(hs->peer_name)));
    return result;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct handshake whole = {0}, pieces = {0};
    size_t taken, taken_in_pieces;

    if (size < 2)
        return 0;
    bool accepts = data[0] & 1;
    enum handshake_verdict verdict = (data[0] >> 2) % (HANDSHAKE_NOT_ALLOWED + 1);
    size_t piece = data[1] ? data[1] : 1;
    struct slice input = {data + 2, size - 2};

    knows_cookie = data[0] & 2;
    start(&whole, accepts, &verdict);
    int result = feed(&whole, input, SIZE_MAX, &taken);
    start(&pieces, accepts, &verdict);
    fuzz_check(feed(&pieces, input, piece, &taken_in_pieces) == result);
    if (result == 1) {
        fuzz_check(taken == taken_in_pieces);
        fuzz_check(strcmp(whole.peer_name, pieces.peer_name) == 0);
        fuzz_check(whole.peer_flags == pieces.peer_flags);
        fuzz_check(whole.peer_creation == pieces.peer_creation);
    }
    return 0;
}
