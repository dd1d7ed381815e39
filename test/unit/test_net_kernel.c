/* SPDX-License-Identifier: Apache-2.0 */
/* What net_adm:ping and others ask the process `net_kernel`. */
#include "otp/net_kernel.h"

#include "node_world.h"
#include "suites.h"

#include <check.h>

static struct node_world world;
static struct gen_server net_kernel;

static void set_up(void)
{
    node_world_start(&world);
    ck_assert_int_eq(net_kernel_start(&net_kernel, world.node), 0);
}

static void tear_down(void)
{
    gen_server_stop(&net_kernel, "shutdown");
    node_world_stop(&world);
}

START_TEST(what_it_answers)
{
    static const struct {
        const char *message, *answer;
    } rows[] = {
        {"{'$gen_call',{~p,tag},{is_auth,peer@h}}", "{tag, yes}"},
        {"{'$gen_call',{~p,tag},what}", "{tag, ignored}"},
        {"{'$gen_call',{~p,tag},{is_auth,peer@h,x}}", "{tag, ignored}"},
        {"{'$gen_cast',what}", ""},
        {"what", ""},
    };

    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        node_world_say(&world, &net_kernel.process, rows[i].message);
        ck_told(&world, rows[i].answer);
    }
    world.peer->sys_form = SYS_FORM_OK;
    node_world_say(&world, &net_kernel.process, "{system,{~p,tag},get_state}");
    ck_told(&world, "{tag, {ok, #{node => us@h}}}");
}
END_TEST

/* As in OTP it traps exits. */
START_TEST(nobody_ends_it)
{
    net_kernel.process.behaviour->exit_signal(&net_kernel.process, slice_of("w\6killed"));
    ck_assert(process_is_alive(&net_kernel.process));
}
END_TEST

Suite *suite_net_kernel(void);
Suite *suite_net_kernel(void)
{
    Suite *suite = suite_create("net_kernel");
    TCase *tc = tcase_create("net_kernel");

    tcase_add_checked_fixture(tc, set_up, tear_down);
    tcase_add_test(tc, what_it_answers);
    tcase_add_test(tc, nobody_ends_it);
    suite_add_tcase(suite, tc);
    return suite;
}
