/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/dist_flags.h"
#include "suites.h"

#include "distribution/handshake.h"

#include <check.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define OLD_FLAGS (DIST_FLAGS_MANDATORY | DIST_FLAG_UNLINK_ID)

#define CONFIG(its_name, its_creation, its_cookie)                                     \
    {                                                                                  \
        .node_name = (its_name), .creation = (its_creation), .flags = DIST_FLAGS_OURS, \
        .cookie = (const uint8_t *)(its_cookie), .cookie_len = sizeof(its_cookie) - 1  \
    }

static const struct handshake_config alice = CONFIG("alice@here.example", 7, "secret");
static const struct handshake_config bob = CONFIG("bob@there.example", 0xfffffff0, "secret");
static const struct handshake_config mallory = CONFIG("bob@there.example", 9, "guess");

struct asked {
    enum handshake_verdict verdict;
    int times;
    char name[NODE_NAME_MAX + 1];
};

static enum handshake_verdict answer(void *ctx, const char *peer_name)
{
    struct asked *asked = ctx;

    asked->times++;
    strcpy(asked->name, peer_name);
    return asked->verdict;
}

/* Move all output of one machine into the other, `step` bytes at a time; the last feed's result. */
static int move(struct handshake *from, struct handshake *to, size_t step)
{
    size_t len, used;
    const uint8_t *bytes = handshake_output(from, &len);
    int rc = 0;

    for (size_t at = 0; at < len; at += used) {
        size_t n = step < len - at ? step : len - at;
        rc = handshake_feed(to, bytes + at, n, &used);
        if (rc != 0) {
            ck_assert_uint_eq(at + used, len);
            return rc;
        }
        ck_assert_uint_eq(used, n);
    }
    return rc;
}

/* Feed one message: <<Len:16, Bytes>>. */
static int feed_message(struct handshake *hs, const void *bytes, size_t len)
{
    uint8_t frame[2 + 0xffff];
    size_t used;

    frame[0] = (uint8_t)(len >> 8);
    frame[1] = (uint8_t)len;
    memcpy(frame + 2, bytes, len);
    return handshake_feed(hs, frame, 2 + len, &used);
}

/* Take the first message of a machine's output. */
static size_t take_message(const uint8_t **at, size_t *left, const uint8_t **message)
{
    ck_assert_uint_ge(*left, 2);
    size_t len = (size_t)(*at)[0] << 8 | (*at)[1];
    ck_assert_uint_ge(*left, 2 + len);
    *message = *at + 2;
    *at += 2 + len;
    *left -= 2 + len;
    return len;
}

/* The next message that a machine sends must be this status. */
static void expect_status(struct handshake *hs, const char *status)
{
    size_t left;
    const uint8_t *at = handshake_output(hs, &left), *message;
    size_t len = take_message(&at, &left, &message);

    ck_assert_uint_eq(len, 1 + strlen(status));
    ck_assert_int_eq(message[0], 's');
    ck_assert_mem_eq(message + 1, status, len - 1);
}

static size_t put(uint8_t *to, size_t at, uint64_t value, size_t size)
{
    for (size_t i = 0; i < size; i++)
        to[at + i] = (uint8_t)(value >> (8 * (size - 1 - i)));
    return at + size;
}

/* <<$N, Flags:64, Creation:32, NameLen:16, Name>>; the length field may lie. */
static size_t name_message(uint8_t *to, uint64_t flags, const char *name, size_t said_len)
{
    size_t at = put(to, 0, 'N', 1);

    at = put(to, at, flags, 8);
    at = put(to, at, 99, 4);
    at = put(to, at, said_len, 2);
    memcpy(to + at, name, strlen(name));
    return at + strlen(name);
}

static int feed_name(struct handshake *hs, uint64_t flags, const char *name)
{
    uint8_t message[1024];

    return feed_message(hs, message, name_message(message, flags, name, strlen(name)));
}

static void connect_accept(struct handshake *connecting, const struct handshake_config *connector,
                           struct handshake *accepting, const struct handshake_config *acceptor,
                           struct asked *asked)
{
    ck_assert_int_eq(handshake_connect(connecting, connector, acceptor->node_name), 0);
    ck_assert_int_eq(handshake_accept(accepting, acceptor, answer, asked), 0);
}

START_TEST(test_both_sides_agree_whatever_the_chunks)
{
    static const size_t steps[] = {1, 2, 3, 7, 1000};
    struct handshake a, b;
    struct asked asked = {.verdict = HANDSHAKE_OK};

    connect_accept(&a, &alice, &b, &bob, &asked);
    ck_assert_int_eq(move(&a, &b, steps[_i]), 0);
    ck_assert_int_eq(move(&b, &a, steps[_i]), 0);
    ck_assert_int_eq(move(&a, &b, steps[_i]), 1);
    ck_assert_int_eq(move(&b, &a, steps[_i]), 1);
    ck_assert_int_eq(asked.times, 1);
    ck_assert_str_eq(asked.name, "alice@here.example");
    ck_assert_str_eq(a.peer_name, "bob@there.example");
    ck_assert_str_eq(b.peer_name, "alice@here.example");
    ck_assert_uint_eq(a.peer_creation, 0xfffffff0);
    ck_assert_uint_eq(b.peer_creation, 7);
    ck_assert_uint_eq(a.peer_flags, DIST_FLAGS_OURS);
    ck_assert_uint_eq(b.peer_flags, DIST_FLAGS_OURS);
    ck_assert(!b.peer_named);
}
END_TEST

START_TEST(test_frames_after_the_handshake_are_left)
{
    static const uint8_t tick[] = {0, 0, 0, 0};
    struct handshake a, b;
    struct asked asked = {.verdict = HANDSHAKE_OK};
    uint8_t both[64];
    size_t len, used;

    connect_accept(&a, &alice, &b, &bob, &asked);
    move(&a, &b, 1000);
    move(&b, &a, 1000);
    const uint8_t *reply = handshake_output(&a, &len);
    memcpy(both, reply, len);
    memcpy(both + len, tick, sizeof tick);
    ck_assert_int_eq(handshake_feed(&b, both, len + sizeof tick, &used), 1);
    ck_assert_uint_eq(used, len);
    ck_assert_int_eq(handshake_feed(&b, tick, sizeof tick, &used), -EPROTO);
    ck_assert_uint_eq(used, 0);
}
END_TEST

START_TEST(test_digest_is_that_of_otp)
{
    /* erlang:md5(["secret" | integer_to_list(4022250974)]) */
    static const uint8_t digest[] = {0x13, 0x98, 0x4c, 0xd3, 0x9b, 0x7d, 0x42, 0xe5,
                                     0xe8, 0x81, 0x43, 0x26, 0xe2, 0x3f, 0x29, 0xf9};
    struct handshake a;
    uint8_t message[64];
    size_t len;

    ck_assert_int_eq(handshake_connect(&a, &alice, "b@h"), 0);
    handshake_output(&a, &len);
    ck_assert_int_eq(feed_message(&a, "sok", 3), 0);
    size_t at = put(message, 0, 'N', 1);
    at = put(message, at, DIST_FLAG_MANDATORY_25_DIGEST, 8);
    at = put(message, at, UINT32_C(4022250974), 4);
    at = put(message, at, 5, 4);
    at = put(message, at, 3, 2);
    memcpy(message + at, "b@h", 3);
    ck_assert_int_eq(feed_message(&a, message, at + 3), 0);
    const uint8_t *reply = handshake_output(&a, &len);
    ck_assert_uint_eq(len, 2 + 1 + 4 + 16);
    ck_assert_int_eq(reply[2], 'r');
    ck_assert_mem_eq(reply + 7, digest, 16);
}
END_TEST

START_TEST(test_wrong_cookie_is_refused_by_the_acceptor)
{
    struct handshake a, m;
    struct asked asked = {.verdict = HANDSHAKE_OK};
    size_t len;

    connect_accept(&m, &mallory, &a, &alice, &asked);
    move(&m, &a, 1);
    move(&a, &m, 1);
    ck_assert_int_eq(move(&m, &a, 1), -EACCES);
    ck_assert_str_eq(a.error, "wrong cookie");
    handshake_output(&a, &len);
    ck_assert_uint_eq(len, 0); /* no ack: it would be a digest to guess the cookie from */
}
END_TEST

START_TEST(test_wrong_cookie_is_refused_by_the_connector)
{
    struct handshake a;
    uint8_t message[64], ack[17] = {'a'};
    size_t len;

    ck_assert_int_eq(handshake_connect(&a, &alice, "b@h"), 0);
    feed_message(&a, "sok", 3);
    size_t at = put(message, 0, 'N', 1);
    at = put(message, at, DIST_FLAGS_OURS, 8);
    at = put(message, at, 1, 8);
    at = put(message, at, 3, 2);
    memcpy(message + at, "b@h", 3);
    ck_assert_int_eq(feed_message(&a, message, at + 3), 0);
    handshake_output(&a, &len);
    ck_assert_int_eq(feed_message(&a, ack, sizeof ack), -EACCES);
    ck_assert_str_eq(a.error, "wrong cookie");
}
END_TEST

static bool is_seven(void *ctx, uint32_t challenge)
{
    (void)ctx;
    return challenge == 7;
}

/* Which would make us answer for somebody without the cookie what we asked him. */
START_TEST(test_own_challenges_are_not_answered)
{
    struct handshake_config config = alice;
    struct asked asked = {.verdict = HANDSHAKE_OK};
    struct handshake a, b;
    uint8_t message[64];
    size_t len, used;

    config.is_ours = is_seven;
    for (uint64_t challenge = 7; challenge <= 8; challenge++) {
        ck_assert_int_eq(handshake_connect(&a, &config, "b@h"), 0);
        feed_message(&a, "sok", 3);
        handshake_output(&a, &len);
        size_t at = put(message, 0, 'N', 1);
        at = put(message, at, DIST_FLAGS_OURS, 8);
        at = put(message, at, challenge, 4);
        at = put(message, at, 1, 4);
        at = put(message, at, 3, 2);
        memcpy(message + at, "b@h", 3);
        ck_assert_int_eq(feed_message(&a, message, at + 3), challenge == 7 ? -EACCES : 0);
        handshake_output(&a, &len);
        ck_assert_int_eq(len == 0, challenge == 7);
    }
    /* The other way round: a right answer comes with a challenge of ours. */
    connect_accept(&b, &bob, &a, &config, &asked);
    move(&b, &a, 1000);
    move(&a, &b, 1000);
    ck_assert(handshake_has_sent(&a, a.challenge) && !handshake_has_sent(&a, a.challenge + 1));
    memcpy(message, handshake_output(&b, &len), sizeof message);
    put(message, 3, 7, 4);
    ck_assert_int_eq(handshake_feed(&a, message, len, &used), -EACCES);
    ck_assert(!handshake_has_sent(&a, a.challenge));
}
END_TEST

START_TEST(test_challenges_differ)
{
    struct handshake a, b;
    struct asked asked = {.verdict = HANDSHAKE_OK};
    uint32_t first = 0;

    for (int i = 0; i < 2; i++) {
        connect_accept(&a, &alice, &b, &bob, &asked);
        move(&a, &b, 1000);
        ck_assert_uint_ne(b.challenge, first);
        first = b.challenge;
    }
}
END_TEST

/* Verdicts that end it: what is sent, and the error on both sides. */
START_TEST(test_refusals)
{
    static const struct {
        enum handshake_verdict verdict;
        int error;
    } rows[] = {{HANDSHAKE_NOK, -EALREADY}, {HANDSHAKE_NOT_ALLOWED, -EPERM}};
    struct handshake a, b;
    struct asked asked = {.verdict = rows[_i].verdict};

    connect_accept(&a, &alice, &b, &bob, &asked);
    ck_assert_int_eq(move(&a, &b, 1), rows[_i].error);
    ck_assert_int_eq(move(&b, &a, 1), rows[_i].error);
    ck_assert_int_eq(b.verdict, rows[_i].verdict);
    ck_assert_str_ne(a.error, "");
    ck_assert_str_ne(b.error, "");
}
END_TEST

START_TEST(test_ok_simultaneous_goes_on)
{
    struct handshake a, b;
    struct asked asked = {.verdict = HANDSHAKE_OK_SIMULTANEOUS};

    connect_accept(&a, &alice, &b, &bob, &asked);
    move(&a, &b, 1);
    ck_assert_int_eq(move(&b, &a, 1), 0);
    ck_assert_int_eq(move(&a, &b, 1), 1);
    ck_assert_int_eq(move(&b, &a, 1), 1);
    ck_assert_int_eq(b.verdict, HANDSHAKE_OK_SIMULTANEOUS);
}
END_TEST

START_TEST(test_alive_and_the_peer_insists)
{
    struct handshake a, b;
    struct asked asked = {.verdict = HANDSHAKE_ALIVE};

    connect_accept(&a, &alice, &b, &bob, &asked);
    move(&a, &b, 1);
    ck_assert_int_eq(move(&b, &a, 1), 0); /* alive */
    ck_assert_int_eq(move(&a, &b, 1), 0); /* true */
    ck_assert_int_eq(move(&b, &a, 1), 0); /* challenge */
    ck_assert_int_eq(move(&a, &b, 1), 1);
    ck_assert_int_eq(move(&b, &a, 1), 1);
    ck_assert_int_eq(b.verdict, HANDSHAKE_ALIVE);
}
END_TEST

START_TEST(test_alive_and_the_peer_gives_up)
{
    struct handshake b;
    struct asked asked = {.verdict = HANDSHAKE_ALIVE};

    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(feed_name(&b, OLD_FLAGS, "a@h"), 0);
    expect_status(&b, "alive");
    ck_assert_int_eq(feed_message(&b, "sfalse", 6), -EALREADY);

    handshake_accept(&b, &bob, answer, &asked);
    feed_name(&b, OLD_FLAGS, "a@h");
    ck_assert_int_eq(feed_message(&b, "smaybe", 6), -EPROTO);
}
END_TEST

START_TEST(test_statuses_that_a_connector_refuses)
{
    static const struct {
        const char *status;
        int error;
    } rows[] = {
        {"s", -EPROTO},
        {"sbogus", -EPROTO},
        {"sokay", -EPROTO},
        {"strue", -EPROTO},
        {"snok", -EALREADY},
        {"snot_allowed", -EPERM},
        {"sok_simultaneous_", -EPROTO},
        {"sok_simultaneous and much more than any status", -EPROTO},
        {"snamed:", -EPROTO},
        {"snamed:xxx@here", -EPROTO},
        {"Nok", -EPROTO},
    };
    struct handshake a;

    ck_assert_int_eq(handshake_connect(&a, &alice, "b@h"), 0);
    ck_assert_int_eq(feed_message(&a, rows[_i].status, strlen(rows[_i].status)), rows[_i].error);
    ck_assert_str_ne(a.error, "");
}
END_TEST

START_TEST(test_peer_without_a_name_is_given_one)
{
    struct handshake b;
    struct asked asked = {.verdict = HANDSHAKE_OK};
    const uint8_t *message;
    size_t left;

    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(feed_name(&b, DIST_FLAGS_OURS | DIST_FLAG_NAME_ME, "here.example"), 0);
    ck_assert(b.peer_named);
    ck_assert(node_name_is_valid(b.peer_name, strlen(b.peer_name)));
    ck_assert_str_eq(strchr(b.peer_name, '@'), "@here.example");
    ck_assert_str_eq(asked.name, b.peer_name);
    ck_assert_uint_ge(b.peer_creation, 4);

    const uint8_t *at = handshake_output(&b, &left);
    size_t name_len = strlen(b.peer_name), len = take_message(&at, &left, &message);
    uint8_t creation[4];
    put(creation, 0, b.peer_creation, 4);
    ck_assert_uint_eq(len, 7 + 2 + name_len + 4);
    ck_assert_mem_eq(message, "snamed:", 7);
    ck_assert_uint_eq((size_t)message[7] << 8 | message[8], name_len);
    ck_assert_mem_eq(message + 9, b.peer_name, name_len);
    ck_assert_mem_eq(message + 9 + name_len, creation, 4);

    /* dist_util on the other side asserts NAME_ME in the flags of the challenge. */
    len = take_message(&at, &left, &message);
    ck_assert_uint_eq(left, 0);
    ck_assert_int_eq(message[0], 'N');
    ck_assert_int_eq(message[4] & (DIST_FLAG_NAME_ME >> 32), DIST_FLAG_NAME_ME >> 32);
}
END_TEST

START_TEST(test_given_names_differ_and_fit)
{
    struct handshake b;
    struct asked asked = {.verdict = HANDSHAKE_OK};
    char host[NODE_NAME_MAX + 1] = "", first[NODE_NAME_MAX + 1] = "";

    memset(host, 'h', 241);
    for (int i = 0; i < 2; i++) {
        handshake_accept(&b, &bob, answer, &asked);
        ck_assert_int_eq(feed_name(&b, OLD_FLAGS | DIST_FLAG_NAME_ME, host), 0);
        ck_assert_str_ne(b.peer_name, first);
        strcpy(first, b.peer_name);
    }
    host[241] = 'h';
    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(feed_name(&b, OLD_FLAGS | DIST_FLAG_NAME_ME, host), -EPROTO);
    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(feed_name(&b, OLD_FLAGS | DIST_FLAG_NAME_ME, "a@h"), -EPROTO);
    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(feed_name(&b, OLD_FLAGS | DIST_FLAG_NAME_ME, ""), -EPROTO);
    ck_assert_int_eq(asked.times, 2);
}
END_TEST

START_TEST(test_every_mandatory_flag_is_required)
{
    uint64_t flag = UINT64_C(1) << _i;
    struct handshake b;
    struct asked asked = {.verdict = HANDSHAKE_OK};
    bool is_mandatory = DIST_FLAGS_MANDATORY & flag;

    handshake_accept(&b, &bob, answer, &asked);
    int rc = feed_name(&b, DIST_FLAGS_MANDATORY & ~flag, "a@h");
    ck_assert_int_eq(rc, is_mandatory ? -EPROTONOSUPPORT : 0);
    ck_assert_int_eq(asked.times, is_mandatory ? 0 : 1);
    expect_status(&b, is_mandatory ? "not_allowed" : "ok");
    ck_assert_int_eq(strncmp(b.error, "peer lacks ", 11) == 0, is_mandatory);
}
END_TEST

START_TEST(test_digest_of_flags_stands_for_all)
{
    struct handshake b;
    struct asked asked = {.verdict = HANDSHAKE_OK};

    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(feed_name(&b, DIST_FLAG_MANDATORY_25_DIGEST | DIST_FLAG_V4_NC, "a@h"), 0);
    ck_assert_uint_eq(b.peer_flags,
                      DIST_FLAGS_MANDATORY | DIST_FLAG_MANDATORY_25_DIGEST | DIST_FLAG_V4_NC);
}
END_TEST

START_TEST(test_flags_that_we_send)
{
    /* From the list of distribution flags: hidden, and without the forms of frames that we do not
     * read. */
    ck_assert_uint_eq(DIST_FLAGS_OURS, UINT64_C(0xd07074fbc));
}
END_TEST

START_TEST(test_old_name_message_with_a_complement)
{
    uint64_t flags = OLD_FLAGS | DIST_FLAG_V4_NC;
    struct handshake b;
    struct asked asked = {.verdict = _i ? HANDSHAKE_ALIVE : HANDSHAKE_OK};
    uint8_t message[64];
    size_t at = put(message, 0, 'n', 1);

    handshake_accept(&b, &bob, answer, &asked);
    at = put(message, at, 5, 2);
    at = put(message, at, flags & 0xffffffff, 4);
    memcpy(message + at, "a@h", 3);
    ck_assert_int_eq(feed_message(&b, message, at + 3), 0);
    ck_assert_str_eq(b.peer_name, "a@h");
    if (_i)
        ck_assert_int_eq(feed_message(&b, "strue", 5), 0);
    at = put(message, 0, 'c', 1);
    at = put(message, at, flags >> 32, 4);
    at = put(message, at, 0xabcdef01, 4);
    ck_assert_int_eq(feed_message(&b, message, at), 0);
    ck_assert_uint_eq(b.peer_flags, flags);
    ck_assert_uint_eq(b.peer_creation, 0xabcdef01);
    memset(message, 0, 21);
    message[0] = 'r';
    ck_assert_int_eq(feed_message(&b, message, 21), -EACCES);
}
END_TEST

START_TEST(test_old_name_message_of_an_old_node)
{
    struct handshake b;
    struct asked asked = {.verdict = HANDSHAKE_OK};
    uint8_t message[64];
    size_t at = put(message, 0, 'n', 1);

    handshake_accept(&b, &bob, answer, &asked);
    at = put(message, at, 5, 2);
    at = put(message, at, DIST_FLAGS_MANDATORY & ~DIST_FLAG_HANDSHAKE_23, 4);
    memcpy(message + at, "a@h", 3);
    ck_assert_int_eq(feed_message(&b, message, at + 3), -EPROTONOSUPPORT);
    ck_assert_str_eq(b.error, "peer lacks HANDSHAKE_23");
}
END_TEST

START_TEST(test_names)
{
    static const char *const good[] = {"a@h", "a-b_c@host.example", "\xc3\xa9@h",
                                       "a@\xf0\x9f\x98\x80"};
    static const char *const bad[] = {
        "",
        "a",
        "@h",
        "a@",
        "a@b@c",
        "a b@h",
        "a@h\n",
        "\x01@h",
        "\xe9@h",
        "a@\xc3",
        "a@\xc0\x80",
        "a@\xed\xa0\x80",
        "\xff@h",
        "a\xc2\x80@h",
        "a\x7f@h",
        "@",
        "a@\xe0\x80\x80",
        "\x80@h",
        "a@\xf5\x80\x80\x80",
    };
    struct handshake b;
    struct asked asked = {.verdict = HANDSHAKE_OK};
    char name[NODE_NAME_MAX + 2] = "";

    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        handshake_accept(&b, &bob, answer, &asked);
        ck_assert_int_eq(feed_name(&b, OLD_FLAGS, good[i]), 0);
        ck_assert_str_eq(b.peer_name, good[i]);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        handshake_accept(&b, &bob, answer, &asked);
        ck_assert_int_eq(feed_name(&b, OLD_FLAGS, bad[i]), -EPROTO);
    }
    memset(name, 'n', NODE_NAME_MAX);
    name[1] = '@';
    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(feed_name(&b, OLD_FLAGS, name), 0);
    name[NODE_NAME_MAX] = 'n';
    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(feed_name(&b, OLD_FLAGS, name), -EPROTO);
    ck_assert(!node_name_is_valid("a\0@h", 4));
}
END_TEST

START_TEST(test_longest_names_on_both_sides)
{
    char long_a[NODE_NAME_MAX + 1] = "", long_b[NODE_NAME_MAX + 1] = "";
    struct handshake_config a_config = alice, b_config = bob;
    struct asked asked = {.verdict = HANDSHAKE_ALIVE};
    struct handshake a, b;

    memset(long_a, 'a', NODE_NAME_MAX);
    memset(long_b, 'b', NODE_NAME_MAX);
    long_a[9] = long_b[9] = '@';
    a_config.node_name = long_a;
    b_config.node_name = long_b;
    connect_accept(&a, &a_config, &b, &b_config, &asked);
    for (int i = 0; i < 2; i++) {
        ck_assert_int_eq(move(&a, &b, 1), 0);
        ck_assert_int_eq(move(&b, &a, 1), 0);
    }
    ck_assert_int_eq(move(&a, &b, 1), 1);
    ck_assert_int_eq(move(&b, &a, 1), 1);
    ck_assert_str_eq(a.peer_name, long_b);
    ck_assert_str_eq(b.peer_name, long_a);
}
END_TEST

START_TEST(test_our_own_bad_name_is_refused)
{
    struct handshake_config config = alice;
    struct handshake a;

    config.node_name = "alice";
    ck_assert_int_eq(handshake_connect(&a, &config, "b@h"), -EINVAL);
    ck_assert_int_eq(handshake_accept(&a, &config, answer, NULL), -EINVAL);
    ck_assert_int_eq(handshake_connect(&a, &alice, "b"), -EINVAL);
}
END_TEST

START_TEST(test_a_peer_with_our_name_is_refused)
{
    struct handshake b;
    struct asked asked = {.verdict = HANDSHAKE_OK};

    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(feed_name(&b, OLD_FLAGS, bob.node_name), -EPERM);
    ck_assert_int_eq(asked.times, 0);
    expect_status(&b, "not_allowed");
}
END_TEST

START_TEST(test_another_node_answers)
{
    struct handshake a, b;
    struct asked asked = {.verdict = HANDSHAKE_OK};

    ck_assert_int_eq(handshake_connect(&a, &alice, "bob@elsewhere"), 0);
    ck_assert_int_eq(handshake_accept(&b, &bob, answer, &asked), 0);
    move(&a, &b, 1000);
    ck_assert_int_eq(move(&b, &a, 1000), -EPERM);
}
END_TEST

START_TEST(test_lengths_that_lie)
{
    uint8_t message[64];
    size_t len = name_message(message, OLD_FLAGS, "a@h", 0xffff), used;
    struct handshake b;
    struct asked asked = {.verdict = HANDSHAKE_OK};

    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(feed_message(&b, message, len), -EPROTO);
    /* A newer peer may append fields behind the name. */
    len = name_message(message, OLD_FLAGS, "a@hmore", 3);
    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(feed_message(&b, message, len), 0);
    ck_assert_str_eq(b.peer_name, "a@h");

    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(handshake_feed(&b, (const uint8_t *)"\xff\xff", 2, &used), -EMSGSIZE);
    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(handshake_feed(&b, (const uint8_t *)"\0\0", 2, &used), -EPROTO);
    /* What is not a handshake at all is refused at its third byte. */
    handshake_accept(&b, &bob, answer, &asked);
    ck_assert_int_eq(handshake_feed(&b, (const uint8_t *)"\1\0G", 3, &used), -EPROTO);
}
END_TEST

START_TEST(test_simultaneous_connects)
{
    ck_assert_int_eq(handshake_simultaneous("b@h", "a@h"), HANDSHAKE_NOK);
    ck_assert_int_eq(handshake_simultaneous("a@h", "b@h"), HANDSHAKE_OK_SIMULTANEOUS);
    ck_assert_int_eq(handshake_simultaneous("a@h", "a@h2"), HANDSHAKE_OK_SIMULTANEOUS);
    ck_assert_int_eq(handshake_simultaneous("z@h", "\xc3\xa9@h"), HANDSHAKE_OK_SIMULTANEOUS);
}
END_TEST

/* The bytes that each side gets in a whole handshake, cut and changed in every way that the tests
 * below like. */
struct script {
    uint8_t bytes[2][1024];
    size_t len[2];
};

static void record(struct handshake *from, struct script *script, int side)
{
    size_t len;
    const uint8_t *bytes = handshake_output(from, &len);

    memcpy(script->bytes[side] + script->len[side], bytes, len);
    script->len[side] += len;
}

static struct script whole_handshake(enum handshake_verdict verdict)
{
    struct script script = {.len = {0, 0}};
    struct asked asked = {.verdict = verdict};
    struct handshake a, b;
    size_t used, done[2] = {0, 0};

    connect_accept(&a, &alice, &b, &bob, &asked);
    for (int i = 0; i < 3; i++) {
        record(&a, &script, 0);
        handshake_feed(&b, script.bytes[0] + done[0], script.len[0] - done[0], &used);
        done[0] += used;
        record(&b, &script, 1);
        handshake_feed(&a, script.bytes[1] + done[1], script.len[1] - done[1], &used);
        done[1] += used;
    }
    ck_assert_uint_eq(done[0], script.len[0]);
    ck_assert_uint_eq(done[1], script.len[1]);
    return script;
}

static void start_side(struct handshake *hs, int side, struct asked *asked)
{
    if (side == 0)
        ck_assert_int_eq(handshake_accept(hs, &bob, answer, asked), 0);
    else
        ck_assert_int_eq(handshake_connect(hs, &alice, bob.node_name), 0);
}

START_TEST(test_truncated_input_is_waited_for)
{
    enum handshake_verdict verdict = _i & 1 ? HANDSHAKE_ALIVE : HANDSHAKE_OK;
    struct script script = whole_handshake(verdict);
    struct asked asked = {.verdict = verdict};
    int side = _i >> 1;
    struct handshake hs;
    size_t used;

    for (size_t len = 0; len < script.len[side]; len++) {
        start_side(&hs, side, &asked);
        ck_assert_int_eq(handshake_feed(&hs, script.bytes[side], len, &used), 0);
        ck_assert_uint_eq(used, len);
    }
    /* Whole, it ends at the digest, which is of another handshake's challenge. */
    start_side(&hs, side, &asked);
    ck_assert_int_eq(handshake_feed(&hs, script.bytes[side], script.len[side], &used), -EACCES);
}
END_TEST

START_TEST(test_mutations_never_get_in)
{
    enum handshake_verdict verdict = _i & 1 ? HANDSHAKE_ALIVE : HANDSHAKE_OK;
    struct script script = whole_handshake(verdict);
    struct asked asked = {.verdict = verdict};
    int side = _i >> 1;
    uint8_t bytes[1024];
    unsigned short seed[3] = {1, 2, (unsigned short)_i};

    for (int round = 0, rounds = test_rounds(50000); round < rounds; round++) {
        struct handshake hs;
        size_t len = script.len[side], at = 0, used, out;
        int rc = 0;

        memcpy(bytes, script.bytes[side], len);
        for (long n = nrand48(seed) % 6; n >= 0; n--)
            bytes[(size_t)nrand48(seed) % len] = (uint8_t)nrand48(seed);
        start_side(&hs, side, &asked);
        while (at < len && rc == 0) {
            size_t n = 1 + (size_t)nrand48(seed) % 40;
            rc = handshake_feed(&hs, bytes + at, n < len - at ? n : len - at, &used);
            at += used;
        }
        ck_assert_int_le(rc, 0);
        ck_assert_int_eq(rc < 0, hs.error[0] != '\0');
        for (const char *c = hs.error; *c; c++)
            ck_assert(*c >= ' ' && *c <= '~');
        handshake_output(&hs, &out);
        ck_assert_uint_le(out, HANDSHAKE_OUT_MAX);
    }
}
END_TEST

START_TEST(test_garbage_never_gets_in)
{
    unsigned short seed[3] = {3, 4, 5};
    struct asked asked = {.verdict = HANDSHAKE_OK};

    for (int round = 0, rounds = test_rounds(50000); round < rounds; round++) {
        struct handshake hs;
        uint8_t bytes[256];
        size_t used;

        for (size_t i = 0; i < sizeof bytes; i++)
            bytes[i] = (uint8_t)nrand48(seed);
        bytes[0] = 0; /* else nearly all of it ends at a length */
        start_side(&hs, round & 1, &asked);
        ck_assert_int_le(handshake_feed(&hs, bytes, sizeof bytes, &used), 0);
        ck_assert_uint_le(used, sizeof bytes);
    }
}
END_TEST

Suite *suite_handshake(void);
Suite *suite_handshake(void)
{
    Suite *suite = suite_create("handshake");
    TCase *tests = tcase_create("handshake");

    tcase_set_timeout(tests, 60);
    tcase_add_loop_test(tests, test_both_sides_agree_whatever_the_chunks, 0, 5);
    tcase_add_test(tests, test_frames_after_the_handshake_are_left);
    tcase_add_test(tests, test_digest_is_that_of_otp);
    tcase_add_test(tests, test_wrong_cookie_is_refused_by_the_acceptor);
    tcase_add_test(tests, test_wrong_cookie_is_refused_by_the_connector);
    tcase_add_test(tests, test_own_challenges_are_not_answered);
    tcase_add_test(tests, test_challenges_differ);
    tcase_add_loop_test(tests, test_refusals, 0, 2);
    tcase_add_test(tests, test_ok_simultaneous_goes_on);
    tcase_add_test(tests, test_alive_and_the_peer_insists);
    tcase_add_test(tests, test_alive_and_the_peer_gives_up);
    tcase_add_loop_test(tests, test_statuses_that_a_connector_refuses, 0, 11);
    tcase_add_test(tests, test_peer_without_a_name_is_given_one);
    tcase_add_test(tests, test_given_names_differ_and_fit);
    tcase_add_loop_test(tests, test_every_mandatory_flag_is_required, 0, 36);
    tcase_add_test(tests, test_digest_of_flags_stands_for_all);
    tcase_add_test(tests, test_flags_that_we_send);
    tcase_add_loop_test(tests, test_old_name_message_with_a_complement, 0, 2);
    tcase_add_test(tests, test_old_name_message_of_an_old_node);
    tcase_add_test(tests, test_names);
    tcase_add_test(tests, test_longest_names_on_both_sides);
    tcase_add_test(tests, test_our_own_bad_name_is_refused);
    tcase_add_test(tests, test_a_peer_with_our_name_is_refused);
    tcase_add_test(tests, test_another_node_answers);
    tcase_add_test(tests, test_lengths_that_lie);
    tcase_add_test(tests, test_simultaneous_connects);
    tcase_add_loop_test(tests, test_truncated_input_is_waited_for, 0, 4);
    tcase_add_loop_test(tests, test_mutations_never_get_in, 0, 4);
    tcase_add_test(tests, test_garbage_never_gets_in);
    suite_add_tcase(suite, tests);
    return suite;
}
