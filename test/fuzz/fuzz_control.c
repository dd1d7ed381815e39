/* SPDX-License-Identifier: Apache-2.0 */
/* Control messages: what was read and can be written must be read as the same. */
#include "fuzz.h"

#include "distribution/control.h"
#include "term/term_write.h"

#include <stdlib.h>
#include <string.h>

/* False for those that we never write. */
static bool write_again(struct buffer *b, const struct control *k)
{
    static const uint8_t pass_through = 112;

    buffer_append(b, &pass_through, 1);
    switch (k->op) {
    case CONTROL_SEND:
        control_put_send(b, &k->to.pid);
        break;
    case CONTROL_ALIAS_SEND:
        control_put_alias_send(b, &k->from.pid, k->reference);
        break;
    case CONTROL_EXIT:
        control_put_exit(b, &k->from.pid, &k->to.pid, k->reason);
        break;
    case CONTROL_MONITOR:
        control_put_monitor(b, &k->from.pid, &k->to, k->reference);
        break;
    case CONTROL_DEMONITOR:
        control_put_demonitor(b, &k->from.pid, &k->to, k->reference);
        break;
    case CONTROL_MONITOR_EXIT:
        control_put_monitor_exit(b, &k->from, &k->to.pid, k->reference);
        term_put_raw(b, k->reason);
        break;
    case CONTROL_UNLINK_ID_ACK:
        control_put_unlink_ack(b, k->id, &k->from.pid, &k->to.pid);
        break;
    default:
        return false;
    }
    term_put_raw(b, k->message);
    return true;
}

static bool same_end(const struct control_end *a, const struct control_end *b)
{
    return slice_equal(a->name, b->name) && pid_equal(&a->pid, &b->pid);
}

static void check_same(const struct control *a, const struct control *b)
{
    fuzz_check(a->op == b->op);
    fuzz_check(same_end(&a->to, &b->to));
    fuzz_check(slice_equal(a->reference, b->reference));
    fuzz_check(slice_equal(a->id, b->id));
    fuzz_check(slice_equal(a->reason, b->reason));
    fuzz_check(slice_equal(a->message, b->message));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct slice frame = fuzz_copy(data, size);
    struct control control, again;
    struct buffer written;

    buffer_init(&written);
    if (control_parse(&control, frame) == 0 && write_again(&written, &control) &&
        !written.overflow) {
        fuzz_check(control_parse(&again, buffer_slice(&written)) == 0);
        check_same(&control, &again);
    }
    buffer_free(&written);
    free((void *)frame.data);
    return 0;
}
