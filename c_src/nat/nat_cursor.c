/* SPDX-License-Identifier: Apache-2.0 */
#include "nat/nat_internal.h"

#include <errno.h>
#include <stdlib.h>

/*
 * A cursor stands in the list of live sessions itself, between the last session it showed and the
 * next, so sessions may come and go around it at no cost and it is never left behind by one that
 * goes.
 */
struct nat_cursor {
    struct nat_coordinator *coordinator;
    struct nat_session place; /* only a link of the list, marked as what it is */
};

int nat_cursor_open(struct nat_coordinator *c, struct nat_cursor **out)
{
    struct nat_cursor *cursor = calloc(1, sizeof *cursor);

    if (!cursor)
        return -ENOMEM;
    cursor->coordinator = c;
    cursor->place.state = NAT_STATE_CURSOR;
    DL_PREPEND(c->live, &cursor->place);
    *out = cursor;
    return 0;
}

bool nat_cursor_next(struct nat_cursor *cursor, struct nat_session_view *view)
{
    struct nat_session *place = &cursor->place, *session = place->next;
    struct nat_coordinator *c = cursor->coordinator;

    while (session && session->state == NAT_STATE_CURSOR)
        session = session->next;
    if (!session)
        return false;
    DL_DELETE(c->live, place);
    DL_APPEND_ELEM(c->live, session, place);
    nat_session_show(session, view);
    return true;
}

void nat_cursor_close(struct nat_cursor *cursor)
{
    struct nat_session *place;

    if (!cursor)
        return;
    place = &cursor->place;
    DL_DELETE(cursor->coordinator->live, place);
    free(cursor);
}
