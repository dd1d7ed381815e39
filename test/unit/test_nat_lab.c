/* SPDX-License-Identifier: Apache-2.0 */
/* The model of a NAT box, and what the coordinator achieves between two of them. */
#include "../nat_lab/nat_matrix.h"
#include "suites.h"

#include <check.h>
#include <string.h>

#define EI NAT_POLICY_EI
#define HD NAT_POLICY_HD
#define PD NAT_POLICY_PD
#define PP NAT_POLICY_PP
#define PC NAT_POLICY_PC
#define RD NAT_POLICY_RD

#define HOST   5000u
#define NOW    1000u
#define ONE_IP 0x0a000001u

static const struct nat_address one = {ONE_IP, 1}, one_other_port = {ONE_IP, 2},
                                two = {ONE_IP + 1, 1};

static struct nat_box make_box(struct nat_type type, bool affine, bool bare)
{
    struct nat_box box;

    nat_box_init(&box, type, affine, bare, 0xcb000001u, 7);
    return box;
}

static uint16_t send_at(struct nat_box *box, uint64_t now, struct nat_address to)
{
    return nat_box_send(box, now, HOST, &to);
}

static uint16_t receive_at(struct nat_box *box, uint64_t now, struct nat_address from,
                           uint16_t external)
{
    return nat_box_receive(box, now, &from, external);
}

START_TEST(types_have_an_index_and_a_name)
{
    char name[NAT_TYPE_NAME];

    for (unsigned i = 0; i < NAT_TYPES; i++)
        ck_assert_uint_eq(nat_type_index(nat_type_at(i)), i);
    ck_assert_str_eq(nat_type_name(nat_type_at(0), name), "EI/EI/PP");
    ck_assert_str_eq(nat_type_name((struct nat_type){HD, PD, PC}, name), "HD/PD/PC");
    ck_assert_str_eq(nat_type_name(nat_type_at(26), name), "PD/PD/RD");
}
END_TEST

/* RFC 4787, section 4.1. */
START_TEST(mapping_depends_on_what_it_says)
{
    for (unsigned i = 0; i < NAT_TYPES; i++) {
        struct nat_type type = nat_type_at(i);
        struct nat_box box = make_box(type, true, false);
        uint16_t first = send_at(&box, NOW, one), same = send_at(&box, NOW, one),
                 port = send_at(&box, NOW, one_other_port), address = send_at(&box, NOW, two);

        ck_assert_uint_eq(first, same);
        ck_assert((port == first) == (type.mapping != PD));
        ck_assert((address == first) == (type.mapping == EI));
    }
}
END_TEST

/* RFC 4787, section 5. */
START_TEST(filtering_depends_on_what_it_says)
{
    for (unsigned i = 0; i < NAT_TYPES; i++)
        for (int variant = 0; variant < 4; variant++) {
            struct nat_type type = nat_type_at(i);
            struct nat_box box = make_box(type, variant & 1, variant & 2);
            uint16_t port = send_at(&box, NOW, one);

            ck_assert_uint_eq(receive_at(&box, NOW, one, port), HOST);
            ck_assert_uint_eq(receive_at(&box, NOW, one_other_port, port),
                              type.filtering == PD ? 0 : HOST);
            ck_assert_uint_eq(receive_at(&box, NOW, two, port), type.filtering == EI ? HOST : 0);
            ck_assert_uint_eq(receive_at(&box, NOW, one, (uint16_t)(port + 1)), 0);
        }
}
END_TEST

START_TEST(allocation_depends_on_what_it_says)
{
    struct nat_box preserving = make_box((struct nat_type){PD, PD, PP}, true, false);
    struct nat_box contiguous = make_box((struct nat_type){PD, PD, PC}, true, false);
    struct nat_box random = make_box((struct nat_type){PD, PD, RD}, true, false);
    uint16_t first = send_at(&contiguous, NOW, one), port = send_at(&random, NOW, one);

    ck_assert_uint_eq(send_at(&preserving, NOW, one), HOST);
    ck_assert_uint_ne(send_at(&preserving, NOW, two), HOST);
    ck_assert_uint_eq(send_at(&contiguous, NOW, two), first + 1);
    ck_assert_uint_eq(send_at(&contiguous, NOW, one_other_port), first + 2);
    ck_assert_uint_ne(port, HOST);
    ck_assert_uint_ne(send_at(&random, NOW, two), port + 1);
}
END_TEST

START_TEST(flows_time_out)
{
    struct nat_box box = make_box((struct nat_type){EI, PD, RD}, true, false);
    uint16_t port = send_at(&box, NOW, one);
    uint64_t later = NOW + NAT_NEW_TIMEOUT_MS;

    ck_assert_uint_eq(receive_at(&box, later, one, port), HOST);
    later += NAT_REPLIED_TIMEOUT_MS;
    ck_assert_uint_eq(receive_at(&box, later, one, port), HOST);
    later += NAT_REPLIED_TIMEOUT_MS + 1;
    ck_assert_uint_eq(receive_at(&box, later, one, port), 0);
    ck_assert_uint_ne(send_at(&box, later, one), port);
    ck_assert_uint_eq(receive_at(&box, later + NAT_NEW_TIMEOUT_MS + 1, one, port), 0);
}
END_TEST

/* An answer to what was let in leaves through the port that it came to, if the box is affine. */
START_TEST(answers_are_affine_or_not)
{
    for (int affine = 0; affine < 2; affine++) {
        struct nat_box box = make_box((struct nat_type){PD, EI, RD}, affine, false);
        uint16_t port = send_at(&box, NOW, one);

        ck_assert_uint_eq(receive_at(&box, NOW, two, port), HOST);
        ck_assert((send_at(&box, NOW, two) == port) == affine);
    }
}
END_TEST

/* Who talks to the host through another port already seems to be somebody else. */
START_TEST(a_second_way_in_has_another_name)
{
    struct nat_box box = make_box((struct nat_type){PD, EI, RD}, true, false);
    uint16_t first = send_at(&box, NOW, one), second = send_at(&box, NOW, two);
    struct nat_address from = two;

    ck_assert_uint_eq(nat_box_receive(&box, NOW, &from, first), HOST);
    ck_assert_uint_eq(from.ip, two.ip);
    ck_assert_uint_ne(from.port, two.port);
    ck_assert_uint_eq(nat_box_send(&box, NOW, HOST, &from), first);
    ck_assert_uint_eq(from.port, two.port);
    ck_assert_uint_eq(send_at(&box, NOW, two), second);
}
END_TEST

/* On a bare box an early packet takes the place of the flow that it should have met. */
START_TEST(an_early_packet_spoils_the_port_of_a_bare_box)
{
    for (int bare = 0; bare < 2; bare++) {
        struct nat_box box = make_box((struct nat_type){EI, PD, PP}, true, bare);

        ck_assert_uint_eq(send_at(&box, NOW, one), HOST);
        ck_assert_uint_eq(receive_at(&box, NOW, two, HOST), 0);
        ck_assert((send_at(&box, NOW + 1, two) == HOST) == !bare);
        ck_assert_uint_eq(send_at(&box, NOW + 1, one_other_port), HOST);
    }
}
END_TEST

static struct nat_profile *make_profile(enum nat_policy allocation, uint32_t port, int64_t delta)
{
    struct nat_profile_fields fields = {.mapping = PD,
                                        .filtering = PD,
                                        .allocation = allocation,
                                        .reflexive_port = port,
                                        .has_port_delta = true,
                                        .port_delta = delta};
    struct nat_profile *profile;

    ck_assert_int_eq(nat_profile_create(&profile, &fields), 0);
    return profile;
}

/* Whatever the profile says and however many attempts there were: ports of 1 to 65535, none twice,
 * and in the first attempt those that are documented. */
START_TEST(planned_ports_are_ports)
{
    static const uint32_t attempts[] = {0, 1, 2, 3, 64, 65, 1000000, UINT32_MAX};
    static const int64_t deltas[] = {0, 1, -1, 70000, INT64_MAX, INT64_MIN};
    static const uint32_t known[] = {0, 1, 2, 4433, 65535};
    struct nat_profile *others[] = {NULL, make_profile(PP, 9, 1), make_profile(PC, 9, 1)};
    uint16_t ports[NAT_PORTS_MAX], first[NAT_PORTS_MAX];

    for (unsigned i = 0; i < 8 * 6 * 5 * 3 * 3; i++) {
        struct nat_profile *profile =
            make_profile((enum nat_policy)(PP + i / 720), known[i / 8 % 5], deltas[i / 40 % 6]);
        size_t count = nat_ports_plan(profile, others[i / 240 % 3], attempts[i % 8], ports);
        uint16_t local = nat_ports_local(profile, attempts[i % 8]);

        ck_assert(count >= 1 && count <= NAT_PORTS_MAX);
        for (size_t k = 0; k < count; k++)
            ck_assert(ports[k] != 0 && (k < 1 || ports[k] != ports[0]) &&
                      (k < 2 || ports[k] != ports[1]));
        ck_assert(local == 0 || local == ports[0]);
        if (attempts[i % 8] == 0) {
            ck_assert_uint_eq(nat_ports_predict(profile, first), count);
            ck_assert_mem_eq(first, ports, count * sizeof ports[0]);
        }
        nat_profile_unref(profile);
    }
    for (int i = 1; i < 3; i++)
        nat_profile_unref(others[i]);
}
END_TEST

/* A punch of the two types, with the boxes and the clocks as given. */
static struct sim_result punch(struct nat_type a, struct nat_type b, struct sim_peer_setup first,
                               struct sim_peer_setup second)
{
    first.type = a;
    second.type = b;
    first.affine = second.affine = true;
    return sim_pair(NAT_RULES_FEASIBLE, 40, &first, &second, true);
}

static const struct nat_type usual = {EI, PD, PP}, random_ports = {EI, PD, RD};

START_TEST(boxes_that_drop_forgive_any_skew)
{
    for (int skew = 0; skew <= 600; skew += 50) {
        struct sim_result result = punch(usual, usual, (struct sim_peer_setup){.skew_ms = skew},
                                         (struct sim_peer_setup){0});

        ck_assert_msg(result.connected && result.attempt == 0, "%d ms", skew);
    }
}
END_TEST

/* Within the time of one way the packets cross; beyond, ports that nobody used yet are needed. */
START_TEST(bare_boxes_want_one_way_or_fresh_ports)
{
    struct sim_peer_setup bare = {.bare = true};

    for (int skew = -125; skew <= 125; skew += 10) {
        struct sim_peer_setup late = {.bare = true, .skew_ms = skew, .recovers = true};
        struct sim_peer_setup plain = late;
        struct sim_result result = punch(usual, usual, late, bare);
        bool is_crossing = skew > -40 && skew < 40;

        ck_assert_msg(result.connected && result.attempt == !is_crossing, "%d ms", skew);
        plain.plain = true;
        result = punch(usual, usual, plain, (struct sim_peer_setup){.bare = true, .plain = true});
        ck_assert_msg(result.connected == is_crossing, "%d ms", skew);
    }
}
END_TEST

/* If only one of the boxes is bare, its peer has to fire first, and gets its turn. */
START_TEST(one_bare_box_gets_its_turn)
{
    for (int role = 0; role < 2; role++)
        for (int skew = -200; skew <= 200; skew += 20) {
            struct sim_peer_setup late = {.bare = role == NAT_INITIATOR, .skew_ms = skew};
            struct sim_peer_setup other = {.bare = role == NAT_TARGET};

            ck_assert_msg(punch(usual, usual, late, other).connected, "%d ms", skew);
            ck_assert_msg(punch(random_ports, usual, late, other).connected, "%d ms", skew);
        }
}
END_TEST

START_TEST(feasible_promises_what_works_and_nothing_else)
{
    for (int bare = 0; bare < 2; bare++) {
        struct matrix_counts counts = matrix_count(NAT_RULES_FEASIBLE, true, bare, false);

        ck_assert_uint_eq(counts.promised_wrongly, 0);
        ck_assert_uint_eq(counts.relayed_wrongly, 0);
        ck_assert_uint_eq(counts.promised, 657);
        ck_assert_uint_eq(counts.attempts[0] + counts.attempts[1], 657);
        ck_assert_double_ge(counts.share, 82);
    }
}
END_TEST

/*
 * The figures that were derived on paper for boxes that give an answer a new port. Of the promises
 * that the documented rules break there, 24 nobody could keep; the others want retries that differ
 * from the first attempt, which old peers are not told of.
 */
START_TEST(strict_boxes_are_as_derived)
{
    struct matrix_counts documented = matrix_count(NAT_RULES_DOCUMENTED, false, true, false);
    struct matrix_counts old = matrix_count(NAT_RULES_V0_14_3, false, true, false);
    struct matrix_counts feasible = matrix_count(NAT_RULES_FEASIBLE, false, true, false);

    ck_assert_uint_eq(documented.promised_wrongly, 24 + 36);
    ck_assert_uint_eq(old.promised_wrongly, 24);
    ck_assert_double_eq_tol(documented.share, 75.7, 0.05);
    ck_assert_double_eq_tol(old.share, 65.0, 0.1);
    ck_assert_double_ge(feasible.share, 82);
}
END_TEST

/* In the pair, a box that counts ports up is asked for answers, which cost ports nobody counts on.
 */
static bool is_counting_lost(struct nat_type x, struct nat_type o)
{
    return x.mapping == PD && x.filtering < PD && x.allocation == PC && o.mapping == PD &&
           o.filtering == PD && o.allocation != RD;
}

START_TEST(model_and_derivation_agree)
{
    for (int affine = 0; affine < 2; affine++)
        for (unsigned i = 0; i < NAT_TYPES; i++)
            for (unsigned j = 0; j < NAT_TYPES; j++) {
                struct sim_peer_setup a = {.type = nat_type_at(i), .affine = affine}, b = a;
                bool connected, derived;
                char first[NAT_TYPE_NAME], second[NAT_TYPE_NAME];

                b.type = nat_type_at(j);
                connected = sim_pair(NAT_RULES_FEASIBLE, 20, &a, &b, true).connected;
                derived = matrix_derived(a.type, b.type, affine);
                if (!affine &&
                    (is_counting_lost(a.type, b.type) || is_counting_lost(b.type, a.type)))
                    derived = false;
                ck_assert_msg(connected == derived, "%s %s", nat_type_name(a.type, first),
                              nat_type_name(b.type, second));
            }
}
END_TEST

struct tally {
    unsigned done, connected, ended;
};

static void count(void *context, const struct sim_result *result)
{
    struct tally *tally = context;

    tally->done++;
    tally->connected += result->connected;
    tally->ended += result->ended && (result->state == NAT_COMPLETED) == result->connected;
}

/* Punches of all kinds, `every_ms` one after the other, with one coordinator. */
static void play_many(unsigned punches, uint32_t every_ms)
{
    struct sim *sim = sim_create(NAT_RULES_FEASIBLE, 20);
    struct tally tally = {0};
    const struct nat_counters *counters = sim_counters(sim);

    for (unsigned i = 0; i < punches; i++) {
        struct sim_peer_setup a = {.type = nat_type_at(i % NAT_TYPES), .affine = true}, b = a;

        b.type = nat_type_at(i / NAT_TYPES % NAT_TYPES);
        sim_add(sim, every_ms == 0 ? 0 : 1, &a, &b, true, count, &tally);
        if (every_ms != 0) {
            sim_run(sim);
            sim_rest(sim, every_ms);
        }
    }
    sim_run(sim);
    ck_assert_uint_eq(tally.done, punches);
    ck_assert_uint_eq(tally.ended, punches);
    ck_assert_uint_eq(counters->completed, tally.connected);
    ck_assert_uint_eq(counters->failed_unreachable + counters->failed_timeout,
                      punches - tally.connected);
    sim_rest(sim, 60000);
    ck_assert_uint_eq(counters->ended + counters->peers + counters->pairs, 0);
    for (int state = 0; state < NAT_LIVE_STATES; state++)
        ck_assert_uint_eq(counters->live[state], 0);
    sim_free(sim);
}

START_TEST(ten_thousand_one_after_the_other)
{
    play_many(10000, 5);
}
END_TEST

START_TEST(five_hundred_at_once)
{
    play_many(500, 0);
}
END_TEST

Suite *suite_nat_lab(void)
{
    Suite *suite = suite_create("nat_lab");
    TCase *tcase = tcase_create("model");

    tcase_add_test(tcase, types_have_an_index_and_a_name);
    tcase_add_test(tcase, mapping_depends_on_what_it_says);
    tcase_add_test(tcase, filtering_depends_on_what_it_says);
    tcase_add_test(tcase, allocation_depends_on_what_it_says);
    tcase_add_test(tcase, flows_time_out);
    tcase_add_test(tcase, answers_are_affine_or_not);
    tcase_add_test(tcase, a_second_way_in_has_another_name);
    tcase_add_test(tcase, an_early_packet_spoils_the_port_of_a_bare_box);
    tcase_add_test(tcase, planned_ports_are_ports);
    suite_add_tcase(suite, tcase);
    tcase = tcase_create("punches");
    tcase_set_timeout(tcase, 300);
    tcase_add_test(tcase, boxes_that_drop_forgive_any_skew);
    tcase_add_test(tcase, bare_boxes_want_one_way_or_fresh_ports);
    tcase_add_test(tcase, one_bare_box_gets_its_turn);
    tcase_add_test(tcase, feasible_promises_what_works_and_nothing_else);
    tcase_add_test(tcase, strict_boxes_are_as_derived);
    tcase_add_test(tcase, model_and_derivation_agree);
    tcase_add_test(tcase, ten_thousand_one_after_the_other);
    tcase_add_test(tcase, five_hundred_at_once);
    suite_add_tcase(suite, tcase);
    return suite;
}
