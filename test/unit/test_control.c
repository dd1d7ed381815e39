/* SPDX-License-Identifier: Apache-2.0 */
#include "distribution/control.h"
#include "term/tags.h"
#include "term/term_write.h"

#include <check.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

/* What a control message is made of, one letter an element. */
enum element {
    PID = 'p',
    OTHER_PID = 'q',
    NAME = 'n',
    COOKIE = 'c',
    REFERENCE = 'r',
    ID = 'i',
    REASON = 'x',
    TOKEN = 't',
    MFA = 'm',
    OPTIONS = 'o',
};

static const struct form {
    int op;
    const char *elements;
    bool has_message;
    enum control_op plain;
} forms[] = {
    {1, "pq", false, CONTROL_LINK},
    {2, "cq", true, CONTROL_SEND},
    {12, "cqt", true, CONTROL_SEND},
    {3, "pqx", false, CONTROL_EXIT},
    {13, "pqtx", false, CONTROL_EXIT},
    {4, "pq", false, CONTROL_UNLINK},
    {6, "pcn", true, CONTROL_REG_SEND},
    {16, "pcnt", true, CONTROL_REG_SEND},
    {7, "pq", false, CONTROL_GROUP_LEADER},
    {8, "pqx", false, CONTROL_EXIT2},
    {18, "pqtx", false, CONTROL_EXIT2},
    {19, "pnr", false, CONTROL_MONITOR},
    {19, "pqr", false, CONTROL_MONITOR},
    {20, "pnr", false, CONTROL_DEMONITOR},
    {20, "pqr", false, CONTROL_DEMONITOR},
    {21, "pqrx", false, CONTROL_MONITOR_EXIT},
    {21, "nqrx", false, CONTROL_MONITOR_EXIT},
    {29, "rppmo", true, CONTROL_SPAWN_REQUEST},
    {30, "rppmot", true, CONTROL_SPAWN_REQUEST},
    {31, "rqiq", false, CONTROL_SPAWN_REPLY},
    {32, "rqiqt", false, CONTROL_SPAWN_REPLY},
    {33, "pr", true, CONTROL_ALIAS_SEND},
    {34, "prt", true, CONTROL_ALIAS_SEND},
    {35, "ipq", false, CONTROL_UNLINK_ID},
    {36, "ipq", false, CONTROL_UNLINK_ID_ACK},
};

#define FORMS (sizeof forms / sizeof forms[0])

static const struct pid from = {{(const uint8_t *)"a@h", 3}, 1, 2, 3};
static const struct pid to = {{(const uint8_t *)"b@h", 3}, 4, 5, 6};

static void put_element(struct buffer *b, char element)
{
    switch (element) {
    case PID:
        term_put_pid(b, &from);
        break;
    case OTHER_PID:
        term_put_pid(b, &to);
        break;
    case NAME:
        term_put_atom(b, "name");
        break;
    case COOKIE:
        term_put_atom(b, "");
        break;
    case REFERENCE:
        term_put_reference(b, slice_of("a@h"), 3, 9);
        break;
    case ID:
        term_put_int(b, 17);
        break;
    case REASON:
        term_put_atoms(b, 2, "some", "reason");
        break;
    case TOKEN:
        term_put_string(b, "token");
        break;
    case MFA:
        term_put_tuple(b, 3);
        term_put_atom(b, "module");
        term_put_atom(b, "function");
        term_put_int(b, 4);
        break;
    case OPTIONS:
        term_put_nil(b);
        break;
    }
}

static void put_frame(struct buffer *b, int op, const char *elements, bool has_message)
{
    uint8_t pass_through = 112;

    buffer_append(b, &pass_through, 1);
    term_put_version(b);
    term_put_tuple(b, 1 + (int)strlen(elements));
    term_put_int(b, op);
    for (; *elements; elements++)
        put_element(b, *elements);
    if (has_message) {
        term_put_version(b);
        term_put_atom(b, "message");
    }
}

/* Parses a copy with nothing behind it. */
static int parse(struct control *k, struct slice frame)
{
    static uint8_t *copy;

    free(copy);
    copy = slice_copy(frame);
    return control_parse(k, (struct slice){copy, frame.len});
}

static int parse_elements(struct control *k, int op, const char *elements, bool has_message)
{
    struct buffer b;

    buffer_init(&b);
    put_frame(&b, op, elements, has_message);
    int result = parse(k, buffer_slice(&b));
    buffer_free(&b);
    return result;
}

static bool is_atom(struct slice term, const char *name)
{
    struct cursor c = cursor_of(term);

    return cursor_is_atom(&c, name);
}

START_TEST(test_forms)
{
    const struct form *form = &forms[_i];
    struct control k;

    ck_assert_int_eq(parse_elements(&k, form->op, form->elements, form->has_message), 0);
    ck_assert_int_eq(k.op, form->plain);
    ck_assert_uint_eq(k.message.len > 0, form->has_message);
    if (form->has_message)
        ck_assert(is_atom(k.message, "message"));
    if (strchr(form->elements, PID))
        ck_assert(pid_equal(&k.from.pid, &from));
    if (strchr(form->elements, OTHER_PID))
        ck_assert(pid_equal(&k.to.pid, &to));
    if (strchr(form->elements, NAME))
        ck_assert(slice_is(k.op == CONTROL_MONITOR_EXIT ? k.from.name : k.to.name, "name"));
    if (strchr(form->elements, REFERENCE))
        ck_assert_uint_eq(k.reference.data[0], TAG_NEWER_REFERENCE);
    if (strchr(form->elements, REASON))
        ck_assert_uint_eq(k.reason.data[0], TAG_SMALL_TUPLE);
    if (form->plain == CONTROL_UNLINK_ID || form->plain == CONTROL_UNLINK_ID_ACK)
        ck_assert(slice_is(k.id, "a\x11"));
    if (strchr(form->elements, MFA)) {
        ck_assert(slice_is(k.module, "module") && slice_is(k.function, "function"));
        ck_assert_int_eq(k.arity, 4);
        ck_assert(slice_is(k.options, "j"));
    }
}
END_TEST

/* One element less, one more, a message where none belongs or none where one does. */
START_TEST(test_wrong_arity)
{
    const struct form *form = &forms[_i];
    char elements[16];
    struct control k;

    strcpy(elements, form->elements);
    strcat(elements, "x");
    ck_assert_int_eq(parse_elements(&k, form->op, elements, form->has_message), -EBADMSG);
    for (size_t len = 0; len < strlen(form->elements); len++) {
        elements[len] = 0;
        memcpy(elements, form->elements, len);
        ck_assert_int_eq(parse_elements(&k, form->op, elements, form->has_message), -EBADMSG);
    }
    ck_assert_int_eq(parse_elements(&k, form->op, form->elements, !form->has_message), -EBADMSG);
}
END_TEST

/* Each element in turn made a term of another type: what must have one is refused. */
START_TEST(test_wrong_elements)
{
    const struct form *form = &forms[_i];
    char elements[16];
    struct control k;

    strcpy(elements, form->elements);
    for (size_t i = 0; i < strlen(elements); i++) {
        char element = elements[i];
        bool any = element == COOKIE || element == TOKEN || element == REASON ||
                   element == OPTIONS || form->plain == CONTROL_SPAWN_REPLY;
        if (any)
            continue;
        elements[i] = TOKEN;
        ck_assert_msg(parse_elements(&k, form->op, elements, form->has_message) == -EBADMSG,
                      "op %d, element %zu", form->op, i);
        elements[i] = element;
    }
}
END_TEST

START_TEST(test_cut_short)
{
    const struct form *form = &forms[_i];
    struct buffer b;
    struct control k;

    buffer_init(&b);
    put_frame(&b, form->op, form->elements, form->has_message);
    for (size_t len = 0; len < buffer_size(&b); len++)
        ck_assert_int_eq(parse(&k, (struct slice){buffer_data(&b), len}), -EBADMSG);
    buffer_append(&b, "", 1);
    ck_assert_int_eq(parse(&k, buffer_slice(&b)), -EBADMSG);
    buffer_free(&b);
}
END_TEST

START_TEST(test_unknown)
{
    struct control k;

    for (int op = -300; op < 600; op++) {
        bool known = false;
        for (size_t i = 0; i < FORMS; i++)
            known |= forms[i].op == op;
        if (!known)
            ck_assert_msg(parse_elements(&k, op, "pq", false) == -ENOTSUP, "op %d", op);
    }
    ck_assert_int_eq(parse(&k, slice_of("p\x83h")), -EBADMSG);
    ck_assert_int_eq(parse(&k, slice_of("p\x83j")), -EBADMSG);
    ck_assert_int_eq(parse(&k, slice_of("q\x83j")), -EBADMSG);
}
END_TEST

/* A name may be empty, as an atom may. */
START_TEST(test_empty_name)
{
    struct control k;

    ck_assert_int_eq(parse_elements(&k, 6, "pcc", true), 0);
    ck_assert(control_end_is_name(&k.to) && k.to.name.len == 0);
    ck_assert_int_eq(parse_elements(&k, 19, "pcr", false), 0);
    ck_assert(control_end_is_name(&k.to) && k.to.name.len == 0);
    ck_assert_int_eq(parse_elements(&k, 19, "pqr", false), 0);
    ck_assert(!control_end_is_name(&k.to));
}
END_TEST

START_TEST(test_too_deep)
{
    struct buffer b;
    struct control k;

    buffer_init(&b);
    put_frame(&b, 2, "cq", false);
    term_put_version(&b);
    for (int i = 0; i < 257; i++)
        term_put_tuple(&b, 1);
    term_put_nil(&b);
    ck_assert_int_eq(parse(&k, buffer_slice(&b)), -E2BIG);
    buffer_free(&b);
}
END_TEST

static struct buffer out;

static void begin(void)
{
    uint8_t pass_through = 112;

    buffer_reset(&out, SIZE_MAX);
    buffer_append(&out, &pass_through, 1);
}

static void expect(struct control *k, enum control_op op)
{
    ck_assert(!out.overflow);
    ck_assert_int_eq(parse(k, buffer_slice(&out)), 0);
    ck_assert_int_eq(k->op, op);
}

/* What we write is read as it was meant. */
START_TEST(test_round_trips)
{
    struct slice reference = slice_of("Z");
    const struct control_end name = {.name = slice_of("name")}, pid = {.pid = to};
    struct buffer made;
    struct control k;

    buffer_init(&made);
    term_put_reference(&made, slice_of("a@h"), 3, 9);
    reference = buffer_slice(&made);

    begin();
    control_put_send(&out, &to);
    term_put_nil(&out);
    expect(&k, CONTROL_SEND);
    ck_assert(pid_equal(&k.to.pid, &to) && slice_is(k.message, "j"));
    begin();
    control_put_reg_send(&out, &from, "name");
    term_put_nil(&out);
    expect(&k, CONTROL_REG_SEND);
    ck_assert(pid_equal(&k.from.pid, &from) && slice_is(k.to.name, "name"));
    begin();
    control_put_alias_send(&out, &from, reference);
    term_put_nil(&out);
    expect(&k, CONTROL_ALIAS_SEND);
    ck_assert(slice_equal(k.reference, reference));
    begin();
    control_put_exit(&out, &from, &to, slice_of("a\1"));
    expect(&k, CONTROL_EXIT);
    ck_assert(pid_equal(&k.from.pid, &from) && pid_equal(&k.to.pid, &to));
    ck_assert(slice_is(k.reason, "a\1"));
    begin();
    control_put_monitor(&out, &from, &name, reference);
    expect(&k, CONTROL_MONITOR);
    ck_assert(slice_is(k.to.name, "name") && slice_equal(k.reference, reference));
    begin();
    control_put_demonitor(&out, &from, &pid, reference);
    expect(&k, CONTROL_DEMONITOR);
    ck_assert(k.to.name.len == 0 && pid_equal(&k.to.pid, &to));
    begin();
    control_put_monitor_exit(&out, &name, &to, reference);
    term_put_atom(&out, "noproc");
    expect(&k, CONTROL_MONITOR_EXIT);
    ck_assert(slice_is(k.from.name, "name") && is_atom(k.reason, "noproc"));
    begin();
    control_put_spawn_reply(&out, reference, &to, true, &from, NULL);
    expect(&k, CONTROL_SPAWN_REPLY);
    ck_assert(slice_equal(k.reference, reference) && pid_equal(&k.to.pid, &to));
    begin();
    control_put_spawn_reply(&out, reference, &to, false, NULL, "notsup");
    expect(&k, CONTROL_SPAWN_REPLY);
    ck_assert(is_atom(k.reason, "notsup"));
    begin();
    control_put_unlink_ack(&out, slice_of("a\7"), &from, &to);
    expect(&k, CONTROL_UNLINK_ID_ACK);
    ck_assert(slice_is(k.id, "a\7") && pid_equal(&k.from.pid, &from));
    buffer_free(&made);
    buffer_free(&out);
}
END_TEST

Suite *suite_control(void);
Suite *suite_control(void)
{
    Suite *s = suite_create("control");
    TCase *tc = tcase_create("all");

    tcase_add_loop_test(tc, test_forms, 0, FORMS);
    tcase_add_loop_test(tc, test_wrong_arity, 0, FORMS);
    tcase_add_loop_test(tc, test_wrong_elements, 0, FORMS);
    tcase_add_loop_test(tc, test_cut_short, 0, FORMS);
    tcase_add_test(tc, test_unknown);
    tcase_add_test(tc, test_empty_name);
    tcase_add_test(tc, test_too_deep);
    tcase_add_test(tc, test_round_trips);
    suite_add_tcase(s, tc);
    return s;
}
