/* SPDX-License-Identifier: Apache-2.0 */
/*
 * Accepting side:  <- N (or n)   -> s   [<- s true|false]   -> N challenge   [<- c]   <- r   -> a
 * Connecting side: -> N   <- s   [-> s true]   <- N challenge   -> r   <- a
 *
 * Every message is <<Len:16, Tag, Rest/binary>>.
 */
#include "distribution/handshake.h"

#include "base/bytes.h"
#include "distribution/dist_flags.h"
#include "distribution/node_name.h"

#include <errno.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/rand.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#define DIGEST_LEN        16
#define CREATION_SMALLEST 4  /* 0..3 are no longer handed out: once, all there was */
#define GIVEN_NAME_LEN    14 /* 64 bits in base 36, and the '@' */

enum state {
    WANT_NAME,
    WANT_ALIVE_REPLY,
    WANT_COMPLEMENT,
    WANT_REPLY,
    WANT_STATUS,
    WANT_CHALLENGE,
    WANT_ACK,
    DONE,
    FAILED,
};

/* A position in a message. Reading past the end sets `bad` and gives zeros; callers check once. */
struct reader {
    const uint8_t *at;
    size_t left;
    bool bad;
};

static const struct {
    uint64_t flag;
    const char *name;
} mandatory[] = {
#define FLAG(name) {DIST_FLAG_##name, #name},
    DIST_MANDATORY(FLAG)
#undef FLAG
};

__attribute__((format(printf, 3, 4))) static int fail(struct handshake *hs, int error,
                                                      const char *format, ...)
{
    va_list args;

    va_start(args, format);
    vsnprintf(hs->error, sizeof hs->error, format, args);
    va_end(args);
    hs->state = FAILED;
    return error;
}

/* Reads `size` bytes; NULL if there are not as many. */
static const uint8_t *read_bytes(struct reader *r, size_t size)
{
    const uint8_t *bytes = r->at;

    if (r->left < size) {
        r->bad = true;
        return NULL;
    }
    r->at += size;
    r->left -= size;
    return bytes;
}

/* An integer of up to 8 bytes. */
static uint64_t read_uint(struct reader *r, size_t size)
{
    const uint8_t *bytes = read_bytes(r, size);
    uint8_t all[8] = {0};

    if (bytes)
        memcpy(all + sizeof all - size, bytes, size);
    return get_u64(all);
}

/* HANDSHAKE_OUT_MAX covers all that one handshake ever writes, so `out` is not reused. */
static void put_bytes(struct handshake *hs, const void *bytes, size_t len)
{
    memcpy(hs->out + hs->out_len, bytes, len);
    hs->out_len += len;
}

static void put_uint(struct handshake *hs, uint64_t value, size_t size)
{
    uint8_t all[8];

    put_u64(all, value);
    put_bytes(hs, all + sizeof all - size, size);
}

static void put_status(struct handshake *hs, const char *status)
{
    put_uint(hs, 1 + strlen(status), 2);
    put_uint(hs, 's', 1);
    put_bytes(hs, status, strlen(status));
}

enum handshake_verdict handshake_simultaneous(const char *our_name, const char *peer_name)
{
    /* strcmp compares bytes as unsigned, and bytes of UTF-8 sort as the code points that Erlang
     * compares. */
    return strcmp(our_name, peer_name) > 0 ? HANDSHAKE_NOK : HANDSHAKE_OK_SIMULTANEOUS;
}

/* MD5(cookie ++ challenge in decimal), as dist_util:gen_digest/2. */
static int make_digest(const struct handshake *hs, uint32_t challenge, uint8_t digest[DIGEST_LEN])
{
    char decimal[16];
    int len = snprintf(decimal, sizeof decimal, "%lu", (unsigned long)challenge);
    EVP_MD_CTX *md = EVP_MD_CTX_new();
    int ok = md && EVP_DigestInit_ex(md, EVP_md5(), NULL) &&
             EVP_DigestUpdate(md, hs->config->cookie, hs->config->cookie_len) &&
             EVP_DigestUpdate(md, decimal, (size_t)len) && EVP_DigestFinal_ex(md, digest, NULL);

    EVP_MD_CTX_free(md);
    return ok ? 0 : -EIO;
}

static int new_challenge(struct handshake *hs)
{
    uint8_t bytes[sizeof hs->challenge];

    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return fail(hs, -EIO, "no random bytes for a challenge");
    memcpy(&hs->challenge, bytes, sizeof bytes);
    return 0;
}

/* Append our digest of `challenge` to the message that is being written. */
static int put_digest(struct handshake *hs, uint32_t challenge)
{
    uint8_t digest[DIGEST_LEN];

    if (make_digest(hs, challenge, digest) < 0)
        return fail(hs, -EIO, "cannot compute an MD5 digest");
    put_bytes(hs, digest, sizeof digest);
    return 0;
}

/* Check the peer's digest of our challenge. */
static int check_digest(struct handshake *hs, const uint8_t *digest)
{
    uint8_t expected[DIGEST_LEN];

    if (make_digest(hs, hs->challenge, expected) < 0)
        return fail(hs, -EIO, "cannot compute an MD5 digest");
    if (CRYPTO_memcmp(digest, expected, sizeof expected) != 0)
        return fail(hs, -EACCES, "wrong cookie");
    return 0;
}

/* Keep the peer's flags; an error that names the first missing one. */
static int check_flags(struct handshake *hs, uint64_t flags)
{
    if (flags & DIST_FLAG_MANDATORY_25_DIGEST)
        flags |= DIST_FLAGS_MANDATORY;
    hs->peer_flags = flags;
    for (size_t i = 0; i < sizeof mandatory / sizeof mandatory[0]; i++)
        if (!(flags & mandatory[i].flag))
            return fail(hs, -EPROTONOSUPPORT, "peer lacks %s", mandatory[i].name);
    return 0;
}

/* A peer without a name sends its host: make a name as net_kernel:generate_node_name/2, and a
 * creation. */
static int give_name(struct handshake *hs, const char *host, size_t host_len)
{
    static const char digits[] = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ";
    uint8_t bytes[sizeof(uint64_t) + sizeof(uint32_t)];
    uint64_t number;
    char *at = hs->peer_name;

    if (host_len > NODE_NAME_MAX - GIVEN_NAME_LEN || !node_name_host_is_valid(host, host_len))
        return fail(hs, -EPROTO, "peer without a name sent an invalid host");
    if (RAND_bytes(bytes, sizeof bytes) != 1)
        return fail(hs, -EIO, "no random bytes for a name");
    memcpy(&number, bytes, sizeof number);
    memcpy(&hs->peer_creation, bytes + sizeof number, sizeof hs->peer_creation);
    if (hs->peer_creation < CREATION_SMALLEST)
        hs->peer_creation += CREATION_SMALLEST;
    do
        *at++ = digits[number % 36];
    while ((number /= 36) > 0);
    *at++ = '@';
    memcpy(at, host, host_len);
    at[host_len] = '\0';
    hs->peer_named = true;
    return 0;
}

static void put_named(struct handshake *hs)
{
    size_t name_len = strlen(hs->peer_name);

    put_uint(hs, 1 + 6 + 2 + name_len + 4, 2);
    put_bytes(hs, "snamed:", 7);
    put_uint(hs, name_len, 2);
    put_bytes(hs, hs->peer_name, name_len);
    put_uint(hs, hs->peer_creation, 4);
}

static int send_challenge(struct handshake *hs)
{
    /* A peer that we named takes it from our flags that we meant to. */
    uint64_t flags = hs->config->flags | (hs->peer_named ? DIST_FLAG_NAME_ME : 0);
    size_t name_len = strlen(hs->config->node_name);
    int error = new_challenge(hs);

    if (error < 0)
        return error;
    put_uint(hs, 1 + 8 + 4 + 4 + 2 + name_len, 2);
    put_uint(hs, 'N', 1);
    put_uint(hs, flags, 8);
    put_uint(hs, hs->challenge, 4);
    put_uint(hs, hs->config->creation, 4);
    put_uint(hs, name_len, 2);
    put_bytes(hs, hs->config->node_name, name_len);
    hs->state = hs->complement_due ? WANT_COMPLEMENT : WANT_REPLY;
    return 0;
}

/* Ask the caller about the peer and send the status. Returns the error that ends the handshake, or
 * 0. */
static int send_verdict(struct handshake *hs)
{
    if (strcmp(hs->peer_name, hs->config->node_name) == 0) {
        put_status(hs, "not_allowed");
        return fail(hs, -EPERM, "peer calls itself by our own name");
    }
    hs->verdict = hs->ask(hs->ctx, hs->peer_name);
    /* A name that we have just made up is nobody else's, so only OK makes sense for it. */
    if (hs->peer_named && hs->verdict != HANDSHAKE_OK)
        hs->verdict = HANDSHAKE_NOT_ALLOWED;
    switch (hs->verdict) {
    case HANDSHAKE_OK:
        if (hs->peer_named)
            put_named(hs);
        else
            put_status(hs, "ok");
        return 0;
    case HANDSHAKE_OK_SIMULTANEOUS:
        put_status(hs, "ok_simultaneous");
        return 0;
    case HANDSHAKE_ALIVE:
        put_status(hs, "alive");
        return 0;
    case HANDSHAKE_NOK:
        put_status(hs, "nok");
        return fail(hs, -EALREADY, "simultaneous connect: our own attempt goes on");
    case HANDSHAKE_NOT_ALLOWED:
        break;
    }
    put_status(hs, "not_allowed");
    return fail(hs, -EPERM, "peer is not allowed to connect");
}

/*
 * <<$N, Flags:64, Creation:32, NameLen:16, Name/binary>>, or from a node of OTP 23 or 24 that was
 * not told our version (it did not ask EPMD) <<$n, 5:16, Flags:32, Name/binary>>: it sends the rest
 * as a complement, after our challenge.
 */
static int handle_name(struct handshake *hs, struct reader *r)
{
    bool is_old = read_uint(r, 1) == 'n';
    hs->complement_due = is_old;
    if (is_old)
        read_uint(r, 2); /* always 5; HANDSHAKE_23 is what counts */
    uint64_t flags = read_uint(r, is_old ? 4 : 8);
    hs->peer_creation = is_old ? 0 : (uint32_t)read_uint(r, 4);
    size_t len = is_old ? r->left : read_uint(r, 2);
    const char *name = (const char *)read_bytes(r, len);
    if (r->bad)
        return fail(hs, -EPROTO, "malformed name message");

    int error = 0;
    if (flags & DIST_FLAG_NAME_ME)
        error = give_name(hs, name, len);
    else if (node_name_is_valid(name, len))
        memcpy(hs->peer_name, name, len); /* the struct was zeroed */
    else
        error = fail(hs, -EPROTO, "invalid node name");
    if (error < 0)
        return error;
    error = check_flags(hs, flags);
    if (error < 0) {
        put_status(hs, "not_allowed");
        return error;
    }
    error = send_verdict(hs);
    if (error < 0)
        return error;
    if (hs->verdict == HANDSHAKE_ALIVE) {
        hs->state = WANT_ALIVE_REPLY;
        return 0;
    }
    return send_challenge(hs);
}

/* <<$s, "true" | "false">>: has the peer lost the connection that we still have? */
static int handle_alive_reply(struct handshake *hs, struct reader *r)
{
    if (r->left == 5 && memcmp(r->at, "strue", 5) == 0)
        return send_challenge(hs);
    if (r->left == 6 && memcmp(r->at, "sfalse", 6) == 0)
        return fail(hs, -EALREADY, "already connected");
    return fail(hs, -EPROTO, "malformed reply to status alive");
}

/* <<$c, FlagsHigh:32, Creation:32>> */
static int handle_complement(struct handshake *hs, struct reader *r)
{
    read_uint(r, 1);
    hs->peer_flags |= read_uint(r, 4) << 32;
    hs->peer_creation = (uint32_t)read_uint(r, 4);
    if (r->bad)
        return fail(hs, -EPROTO, "malformed complement message");
    /* A name can only be asked for in the name message. */
    hs->peer_flags &= ~DIST_FLAG_NAME_ME;
    hs->state = WANT_REPLY;
    return 0;
}

bool handshake_has_sent(const struct handshake *hs, uint32_t challenge)
{
    bool waits = hs->state == WANT_COMPLEMENT || hs->state == WANT_REPLY || hs->state == WANT_ACK;

    return waits && hs->challenge == challenge;
}

/* No digest is made of a challenge that is our own: it would be the answer that we wait for. */
static int check_challenge(struct handshake *hs, uint32_t challenge)
{
    if (hs->config->is_ours && hs->config->is_ours(hs->config->ctx, challenge))
        return fail(hs, -EACCES, "it sent us a challenge of our own");
    return 0;
}

/* <<$r, Challenge:32, Digest:16/binary>> */
static int handle_reply(struct handshake *hs, struct reader *r)
{
    read_uint(r, 1);
    uint32_t challenge = (uint32_t)read_uint(r, 4);
    const uint8_t *digest = read_bytes(r, DIGEST_LEN);
    if (r->bad || r->left > 0)
        return fail(hs, -EPROTO, "malformed challenge reply");
    int error = check_challenge(hs, challenge);
    if (error == 0)
        error = check_digest(hs, digest);
    if (error < 0)
        return error;
    put_uint(hs, 1 + DIGEST_LEN, 2);
    put_uint(hs, 'a', 1);
    error = put_digest(hs, challenge);
    if (error < 0)
        return error;
    hs->state = DONE;
    return 1;
}

/* <<$s, Status/binary>> */
static int handle_status(struct handshake *hs, struct reader *r)
{
    char status[16] = "";

    /* What is longer than any status that we take stays "" and is refused; named: is told apart for
     * its reason. */
    if (r->left > 7 && memcmp(r->at, "snamed:", 7) == 0)
        return fail(hs, -EPROTO, "peer gives us a name although we have one");
    if (r->left <= sizeof status)
        memcpy(status, r->at + 1, r->left - 1);
    if (strcmp(status, "nok") == 0)
        return fail(hs, -EALREADY, "simultaneous connect: the peer's attempt goes on");
    if (strcmp(status, "not_allowed") == 0)
        return fail(hs, -EPERM, "peer does not allow us to connect");
    if (strcmp(status, "alive") == 0)
        put_status(hs, "true"); /* we are here because we have no connection: its own is dead */
    else if (strcmp(status, "ok") != 0 && strcmp(status, "ok_simultaneous") != 0)
        return fail(hs, -EPROTO, "unknown status");
    hs->state = WANT_CHALLENGE;
    return 0;
}

/* <<$N, Flags:64, Challenge:32, Creation:32, NameLen:16, Name/binary>> */
static int handle_challenge(struct handshake *hs, struct reader *r)
{
    if (read_uint(r, 1) == 'n')
        return fail(hs, -EPROTONOSUPPORT, "peer does not speak version 6 of the handshake");
    uint64_t flags = read_uint(r, 8);
    uint32_t challenge = (uint32_t)read_uint(r, 4);
    hs->peer_creation = (uint32_t)read_uint(r, 4);
    size_t len = read_uint(r, 2);
    const uint8_t *name = read_bytes(r, len);
    if (r->bad)
        return fail(hs, -EPROTO, "malformed challenge message");
    if (len != strlen(hs->peer_name) || memcmp(name, hs->peer_name, len) != 0)
        return fail(hs, -EPERM, "another node answered than the one called");
    int error = check_challenge(hs, challenge);
    if (error == 0)
        error = check_flags(hs, flags);
    if (error < 0)
        return error;
    error = new_challenge(hs);
    if (error < 0)
        return error;
    put_uint(hs, 1 + 4 + DIGEST_LEN, 2);
    put_uint(hs, 'r', 1);
    put_uint(hs, hs->challenge, 4);
    hs->state = WANT_ACK;
    return put_digest(hs, challenge);
}

/* <<$a, Digest:16/binary>> */
static int handle_ack(struct handshake *hs, struct reader *r)
{
    read_uint(r, 1);
    const uint8_t *digest = read_bytes(r, DIGEST_LEN);
    if (r->bad || r->left > 0)
        return fail(hs, -EPROTO, "malformed challenge ack");
    int error = check_digest(hs, digest);
    if (error < 0)
        return error;
    hs->state = DONE;
    return 1;
}

/*
 * What each state waits for: the tags of its message, the longest that it can be (tag and all;
 * where a newer peer may append fields, the buffer is the limit), and what handles it.
 */
static const struct {
    const char *tags;
    size_t max;
    int (*handle)(struct handshake *hs, struct reader *r);
    const char *what;
} wanted[] = {
    [WANT_NAME] = {"Nn", HANDSHAKE_IN_MAX, handle_name, "a name"},
    [WANT_ALIVE_REPLY] = {"s", 6, handle_alive_reply, "a reply to status alive"},
    [WANT_COMPLEMENT] = {"c", 64, handle_complement, "a complement"},
    [WANT_REPLY] = {"r", 1 + 4 + DIGEST_LEN, handle_reply, "a challenge reply"},
    [WANT_STATUS] = {"s", HANDSHAKE_IN_MAX, handle_status, "a status"},
    [WANT_CHALLENGE] = {"Nn", HANDSHAKE_IN_MAX, handle_challenge, "a challenge"},
    [WANT_ACK] = {"a", 1 + DIGEST_LEN, handle_ack, "a challenge ack"},
};

/* How many bytes of the message being read are still to come; an error as soon as it cannot be the
 * one expected. */
static int bytes_missing(struct handshake *hs, size_t *missing)
{
    if (hs->in_len < 2) {
        *missing = 2 - hs->in_len;
        return 0;
    }
    size_t len = get_u16(hs->in);
    if (len == 0)
        return fail(hs, -EPROTO, "empty message instead of %s", wanted[hs->state].what);
    if (hs->in_len > 2 &&
        !memchr(wanted[hs->state].tags, hs->in[2], strlen(wanted[hs->state].tags)))
        return fail(hs, -EPROTO, "message 0x%02x instead of %s", hs->in[2], wanted[hs->state].what);
    if (len > wanted[hs->state].max)
        return fail(hs, -EMSGSIZE, "message of %zu bytes instead of %s", len,
                    wanted[hs->state].what);
    *missing = 2 + len - hs->in_len;
    return 0;
}

int handshake_feed(struct handshake *hs, const uint8_t *bytes, size_t len, size_t *used)
{
    *used = 0;
    if (hs->state == DONE || hs->state == FAILED)
        return -EPROTO;
    for (;;) {
        size_t missing = 0;
        int error = bytes_missing(hs, &missing);
        if (error < 0)
            return error;
        if (hs->in_len > 2 && missing == 0) {
            struct reader r = {.at = hs->in + 2, .left = hs->in_len - 2};
            hs->in_len = 0;
            int result = wanted[hs->state].handle(hs, &r);
            if (result != 0)
                return result;
            continue;
        }
        if (*used == len)
            return 0;
        /* Up to the tag byte by byte: a wrong message is refused before it is waited for. */
        size_t n = hs->in_len <= 2 ? 1 : missing < len - *used ? missing : len - *used;
        memcpy(hs->in + hs->in_len, bytes + *used, n);
        hs->in_len += n;
        *used += n;
    }
}

const uint8_t *handshake_output(struct handshake *hs, size_t *len)
{
    const uint8_t *bytes = hs->out + hs->out_taken;

    *len = hs->out_len - hs->out_taken;
    hs->out_taken = hs->out_len;
    return bytes;
}

static int start(struct handshake *hs, const struct handshake_config *config, enum state state)
{
    memset(hs, 0, sizeof *hs);
    hs->config = config;
    hs->state = state;
    return node_name_is_valid(config->node_name, strlen(config->node_name)) ? 0 : -EINVAL;
}

int handshake_accept(struct handshake *hs, const struct handshake_config *config,
                     handshake_verdict_cb ask, void *ctx)
{
    int error = start(hs, config, WANT_NAME);

    hs->ask = ask;
    hs->ctx = ctx;
    return error;
}

int handshake_connect(struct handshake *hs, const struct handshake_config *config,
                      const char *peer_name)
{
    size_t name_len = strlen(config->node_name);
    int error = start(hs, config, WANT_STATUS);

    if (error < 0)
        return error;
    if (!node_name_is_valid(peer_name, strlen(peer_name)))
        return -EINVAL;
    memcpy(hs->peer_name, peer_name, strlen(peer_name));
    put_uint(hs, 1 + 8 + 4 + 2 + name_len, 2);
    put_uint(hs, 'N', 1);
    put_uint(hs, config->flags, 8);
    put_uint(hs, config->creation, 4);
    put_uint(hs, name_len, 2);
    put_bytes(hs, config->node_name, name_len);
    return 0;
}
